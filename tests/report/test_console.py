import io

import pytest
from rich.console import Console

from transfer_jax.report.console import Bars, table


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_bars_show_what_is_done(console):
    bars = Bars(console)
    bars.start("training head", 40, done=8)
    bars.advance(16, loss=0.6931)
    bars.advance(16, loss=0.25)
    bars.finish()
    assert "training head" in written(console)
    assert "40/40" in written(console)
    assert "loss 0.250" in written(console)


def test_a_new_task_ends_the_one_before(console):
    bars = Bars(console)
    for task in ("first", "second"):
        bars.start(task, 2)
    bars.advance(2)
    bars.finish()
    bars.advance(1)
    bars.say("done")
    assert written(console).rstrip().endswith("done")
    assert "2/2" in written(console)
    assert "0/2" in written(console)


def test_tables(console):
    console.print(table("Phases", ("phase", "accuracy"), [["head", "81.7%"], ["top", "84.8%"]]))
    lines = written(console).splitlines()
    assert lines[0].startswith("Phases")
    head, top = (next(line for line in lines if name in line) for name in ("head", "top"))
    assert head.index("81.7%") == top.index("84.8%") > head.index("head")
