"""The terminal: tables, messages and the progress of tasks."""

import codecs
import contextlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleDimensions, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from transfer_jax.report.names import visible
from transfer_jax.report.progress import Meter

LINE_SECONDS, _FIRST_LINE_SECONDS = 30.0, 4.0
"""Largest number of seconds between lines of progress where stderr is a file or a pipe, and seconds until the
first one."""
_UNLIMITED = 10_000
"""Width of a file or a pipe in characters: no line is wrapped."""
_ASCII = str.maketrans(
    {
        **{"…": "...", "×": "x", "–": "-", "—": "-", "±": "+-", "•": "*", "·": "."},  # noqa: RUF001
        **{"━": "-", "─": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+"},
        **{"░": "-", "▒": "=", "▓": "*", "█": "#"},
    }
)
"""Replacements of characters that this package prints."""


class Terminal(Console):
    """A console whose lines are wrapped to the width of a terminal, and never in a file or a pipe.

    Nothing more is printed after the reader of a pipe is gone, and after any other error of stderr, such as a
    full disk: a training needs none of its messages. Results that stdout does not accept are an error.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            if not self.stderr:
                raise
            self._give_up()

    def on_broken_pipe(self) -> None:
        self._give_up()

    def _give_up(self) -> None:
        """Prints nothing from now on, and sends what the stream still has to the null device."""
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.file.fileno())
            os.close(null)

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        size = super().size
        return size if self.is_terminal else ConsoleDimensions(_UNLIMITED, size.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size


class Bars:
    """A `Progress` that shows a bar on a terminal; in a file or a pipe, lines, soon at first.

    The lines come after 4, 8, 16 and 32 seconds, and then every half minute.

    Both show the number of finished items, their rate, the remaining time and the last values.

    Args:
        console: The console to print to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._meter: Meter | None = None
        self._bar: Progress | None = None
        self._line_at = 0.0
        self._values = ""

    def start(self, task: str, total: int, *, done: int = 0) -> None:
        self.finish()
        task = visible(task)
        self._name, self._meter, self._values, self._line_at = (
            task,
            Meter(total, done),
            "",
            _FIRST_LINE_SECONDS,
        )
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}", markup=False),
                console=self._console,
            )
            self._bar.add_task(task, total=total, completed=done, state="")
            self._bar.start()

    def advance(self, images: int, **values: float) -> None:
        if self._meter is None:
            return
        self._meter.advance(images)
        self._values = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.update(TaskID(0), completed=self._meter.done, state=self._state())
        elif self._meter.elapsed >= self._line_at:
            elapsed = self._meter.elapsed
            self._line_at = elapsed + min(elapsed, LINE_SECONDS)
            self._print_line(self._state())

    def finish(self) -> None:
        if self._meter is None:
            return
        if self._bar is not None:
            self._bar.update(TaskID(0), state=self._end_state())
        else:
            self._print_line(self._end_state())
        self.abandon()

    def abandon(self) -> None:
        """Ends the task after an error and shows the terminal's cursor again."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._meter = None

    def log(self, message: str) -> None:
        print_line(self._console, message)

    def _print_line(self, state: str) -> None:
        assert self._meter is not None
        count = f"{self._meter.done:,}/{self._meter.total:,}"
        print_line(self._console, f"{self._name}: {count}{', ' if state else ''}{state}")

    def _state(self) -> str:
        assert self._meter is not None
        rate, remaining = self._meter.rate, self._meter.remaining
        left = "" if remaining is None else f"{_clock(remaining)} left"
        return ", ".join(part for part in (_per_second(rate), left, self._values) if part)

    def _end_state(self) -> str:
        assert self._meter is not None
        parts = (_per_second(self._meter.mean_rate), _clock(self._meter.elapsed), self._values)
        return ", ".join(part for part in parts if part)


def print_line(console: Console, message: str) -> None:
    """Prints a message as it is, without markup and colors; a terminal wraps it, not this function."""
    console.print(message, markup=False, highlight=False, emoji=False, soft_wrap=True)


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Group:
    """Returns a table whose first column is text and whose others are numbers, aligned to the right.

    Args:
        title: A line above the table, which may be wider than the table; None for none.
        columns: The names of the columns.
        rows: The cells of each row. They, the names and the title are shown as `visible` returns them; an
            empty cell stays empty.
    """
    found = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
    for index, column in enumerate(columns):
        found.add_column(_cell(column), justify="right" if index else "left", overflow="fold")
    for row in rows:
        found.add_row(*map(_cell, row))
    return Group(found) if title is None else Group(Text(visible(title), style="bold"), found)


def _cell(text: str) -> Text:
    """Returns the text of a cell, in which neither `[bold]` nor `:dog:` has a meaning."""
    return Text(visible(text) if text else "")


def replace_unencodable() -> None:
    """Makes stdout and stderr replace characters that their encoding lacks, such as `…` by `...`."""
    codecs.register_error("transfer_jax.replace", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="transfer_jax.replace")


class LogHandler(logging.Handler):
    """A handler that prints log records to a console, above its progress bar.

    Args:
        console: The console.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the level and the message of a record."""
        try:
            print_line(self._console, f"{record.levelname.lower()}: {self.format(record)}")
        except Exception:
            self.handleError(record)


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "replace").decode(), error.end


def _per_second(rate: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


CONSOLE = Terminal(stderr=True)
"""The console for messages and progress."""
OUT = Terminal()
"""The console for the results of a command."""
BARS = Bars(CONSOLE)
"""The progress of a command."""
