"""Progress bars and tables on the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


class Bars:
    """Shows progress as bars with images a second and the time left; fits `Progress` of `report.progress`.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._task = TaskID(0)

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        self.finish()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(table_column=Column(no_wrap=True)),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=self._console,
        )
        self._task = self._bars.add_task(task, total=total, completed=done, values="")
        self._bars.start()

    def advance(self, images: int, **values: float) -> None:
        if self._bars is not None:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
            self._bars.update(self._task, advance=images, values=shown)

    def finish(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def abandon(self) -> None:
        """Gives the terminal back after an error; a log is spared a bar that goes no further."""
        if self._bars is not None:
            self._bars.live.transient = not self._console.is_terminal
            self.finish()

    def say(self, message: str) -> None:
        self._console.print(message)


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is text and whose others are figures."""
    shown = Table(
        title=title and escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0
    )
    for index, column in enumerate(columns):
        shown.add_column(escape(column), justify="right" if index else "left", overflow="fold")
    for row in rows:
        shown.add_row(*map(escape, row))
    return shown


CONSOLE = Console(stderr=True)
"""For what a command says of its work."""
OUT = Console()
"""For what a command was asked for."""
BARS = Bars(CONSOLE)
