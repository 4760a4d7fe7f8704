import json

import numpy as np
import pytest
from PIL import Image

from transfer_jax.report.rate_figures import draw_rate_curve, draw_timelines
from transfer_jax.report.rate_timeline import Epoch, Timeline, timeline_text

BLOCKS = ("stem", "blocks.1", "head")
TIMELINE = Timeline(
    BLOCKS,
    (
        Epoch("first", 1, {"head": 1e-2}),
        Epoch("second", 1, {"blocks.1": 1e-5, "head": 1e-3}),
        Epoch("second", 2, {"blocks.1": 0.0, "head": 1e-4}),
    ),
)


def test_rates_by_block_and_epoch():
    expected = [[np.nan] * 3, [np.nan, 1e-5, np.nan], [1e-2, 1e-3, 1e-4]]
    np.testing.assert_array_equal(TIMELINE.rates(), expected)


def test_a_run_is_read_from_its_log(tmp_path):
    lines = [
        {"step": 3, "kind": "train", "phase": epoch.phase, "epoch": epoch.epoch, "rates": epoch.rates}
        for epoch in TIMELINE.epochs
    ]
    lines.insert(1, {"step": 3, "kind": "evaluation", "phase": "first", "epoch": 1})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Timeline.executed(tmp_path, BLOCKS) == TIMELINE


def test_json_gives_it_back():
    kept = json.loads(json.dumps(TIMELINE.to_json()))
    assert Timeline.from_json(list(BLOCKS), kept) == TIMELINE


@pytest.mark.parametrize("width", [10, 80])
def test_the_text_has_the_head_on_top(width):
    lines = timeline_text(TIMELINE, width).plain.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["head", "blocks.1", "stem"]
    assert lines[3].strip().startswith("· frozen")
    if width == 80:
        assert lines[0].split()[1] == "█▓▒"
        assert lines[1].split()[1] == "·░·"
        assert lines[2].split()[1] == "···"
    else:  # a single character for all epochs
        assert [len(line) for line in lines[:3]] == [10, 10, 10]


def test_rates_below_a_ten_thousandth_of_the_highest_have_the_lightest_shade():
    timeline = Timeline(BLOCKS, (Epoch("all", 1, {"stem": 1e-9, "blocks.1": 1e-6, "head": 1.0}),))
    head, middle, stem = (line.split()[1] for line in timeline_text(timeline, 80).plain.splitlines()[:3])
    assert (head, middle, stem) == ("█", "░", "░")


@pytest.mark.parametrize("name", ["plan.png", "plan.svg"])
def test_pictures(tmp_path, name):
    draw_timelines({"planned": TIMELINE, "executed": TIMELINE}, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    if name.endswith("png"):
        with Image.open(tmp_path / name) as picture:
            colours = np.unique(np.asarray(picture)[..., :3].reshape(-1, 3), axis=0)
        assert len(colours) > 20
    else:
        assert b"<svg" in content
        assert content.count(b"<image") >= 2


def test_a_curve(tmp_path):
    draw_rate_curve([1e-4, 1e-3, 1e-2], [1.0, 0.5, 2.0], {"lowest": 1e-3}, tmp_path / "rates.png")
    with Image.open(tmp_path / "rates.png") as picture:
        assert picture.size[0] > 300


def test_other_kinds_of_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"plan.gif must end in .png or .svg"):
        draw_timelines({"planned": TIMELINE}, tmp_path / "plan.gif")
