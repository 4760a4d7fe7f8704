import io
import logging
import sys

import pytest
from rich.console import Console

from transfer_jax.report import console as module
from transfer_jax.report.console import (
    Bars,
    LogHandler,
    Terminal,
    print_line,
    replace_unencodable,
    table,
)


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)


@pytest.fixture
def pipe() -> Terminal:
    return Terminal(file=io.StringIO())


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_bars_show_the_progress_on_a_terminal(terminal):
    bars = Bars(terminal)
    bars.start("training head", 40, done=8)
    bars.advance(16, loss=0.6931)
    bars.advance(16, loss=0.25)
    bars.finish()
    assert "training head" in written(terminal)
    assert "40/40" in written(terminal)
    assert "loss 0.25" in written(terminal)


def test_a_new_task_ends_the_one_before(terminal):
    bars = Bars(terminal)
    for task in ("first", "second"):
        bars.start(task, 2)
    bars.advance(2)
    bars.finish()
    bars.advance(1)
    bars.log("done")
    assert written(terminal).rstrip().endswith("done")
    assert "2/2" in written(terminal)
    assert "0/2" in written(terminal)


def test_a_pipe_gets_lines_soon_and_then_every_half_minute(pipe, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    meter = module.Meter
    monkeypatch.setattr(module, "Meter", lambda total, done: meter(total, done, clock=lambda: now[0]))
    bars = Bars(pipe)
    bars.start("training head", 1000, done=100)
    for _ in range(90):
        now[0] += 1
        bars.advance(10, loss=0.5)
    bars.finish()
    assert written(pipe).splitlines() == [
        "training head: 140/1,000, 10/s, 0:01:26 left, loss 0.5",
        "training head: 180/1,000, 10/s, 0:01:22 left, loss 0.5",
        "training head: 260/1,000, 10/s, 0:01:14 left, loss 0.5",
        "training head: 420/1,000, 10/s, 0:00:58 left, loss 0.5",
        "training head: 720/1,000, 10/s, 0:00:28 left, loss 0.5",
        "training head: 1,000/1,000, 10/s, 0:01:30, loss 0.5",
    ]


def test_an_error_leaves_no_line_in_a_pipe(pipe):
    bars = Bars(pipe)
    bars.start("reading", 10)
    bars.abandon()
    bars.finish()
    assert written(pipe) == ""


def test_tables(terminal):
    terminal.print(table("Phases", ("phase", "accuracy"), [["head", "81.7%"], ["top", "84.8%"]]))
    lines = written(terminal).splitlines()
    assert lines[0] == "Phases"
    head, top = (next(line for line in lines if name in line) for name in ("head", "top"))
    assert head.index("81.7%") == top.index("84.8%") > head.index("head")


def test_cells_are_no_markup(pipe):
    names = ["[bold]x", "[/]", ":dog:", "a\\", r"\[b]", "$_^", "two\nlines", "", " ", "caf\udce9", "日本"]
    pipe.print(table("[i]title\n:dog:", ("[b]class", "F1"), [[name, "1"] for name in names]))
    lines = [line.strip() for line in written(pipe).splitlines()]
    assert lines[0] == r"[i]title\n:dog:"
    assert lines[2].split() == ["[b]class", "F1"]
    shown = [*names[:6], r"two\nlines", "", "“ ”", r"caf\udce9", "日本"]
    assert [line.removesuffix("1").strip() for line in lines[4 : 4 + len(names)]] == shown


def test_a_table_in_a_pipe_is_as_wide_as_it_needs_to_be(pipe, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    cells = ["x" * 150, *(str(number) * 12 for number in range(8))]
    title = ("A title that is wider than the table " * 10).strip()
    pipe.print(table(title, [f"column {index}" for index in range(9)], [cells]))
    lines = written(pipe).splitlines()
    assert lines[0] == title
    assert any(all(cell in line for cell in cells) for line in lines)
    assert max(map(len, lines)) < 500


def test_a_title_is_not_wrapped_to_a_narrow_table(terminal):
    title = "Validation images: accuracy 81.7%, balanced 80.3%, macro F1 80.0%"
    terminal.print(table(title, ("class", "F1"), [["a", "80.0%"]]))
    assert written(terminal).splitlines()[0] == title


def test_messages_are_printed_as_they_are(pipe, terminal):
    message = "[bold]no markup[/bold] :dog: " * 20
    for console in (pipe, terminal):
        print_line(console, message)
        assert written(console) == message + "\n"


def test_characters_that_an_encoding_lacks_are_replaced(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    replace_unencodable()
    for stream in streams:
        stream.write("80 ± 3 %, größe … 3 × 4")  # noqa: RUF001
        stream.flush()
        assert stream.buffer.getvalue() == b"80 +- 3 %, gr??e ... 3 x 4"


def test_log_records_are_lines(pipe):
    record = logging.LogRecord("name", logging.WARNING, "file", 1, "no %s", ("[report]",), None)
    LogHandler(pipe).emit(record)
    assert written(pipe) == "warning: no [report]\n"


class Lost(io.StringIO):
    """A stream that fails."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error
        self.calls = 0

    def write(self, text: str) -> int:
        self.calls += 1
        raise self._error


GONE, FULL = BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")


@pytest.mark.parametrize(("error", "stderr"), [(GONE, True), (GONE, False), (FULL, True)])
def test_lost_output_does_not_end_a_training(error, stderr):
    console = Terminal(file=Lost(error), stderr=stderr)
    bars = Bars(console)
    bars.start("training", 1)
    bars.advance(1)
    bars.finish()
    bars.log("done")
    assert isinstance(console.file, Lost)
    assert console.file.calls == 1


def test_results_on_a_full_disk_are_an_error():
    with pytest.raises(OSError, match="No space left"):
        print_line(Terminal(file=Lost(FULL)), "done")
