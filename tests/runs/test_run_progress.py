import dataclasses
import json

import pytest

from transfer_jax.freezing.controllers import Measured
from transfer_jax.runs.epoch_totals import EpochTotals
from transfer_jax.runs.goodput import Goodput
from transfer_jax.runs.run_progress import RunProgress

TEST = {
    "epoch": 0.5,
    "blocks": ["stem", "top"],
    "learning_rate": 0.1,
    "grad_norm": {"top": 2.0},
    "plasticity": {},
}
EPOCH = {"steps": 2, "sums": {"loss": 3.0}, "rates": {"top": 0.2}, "order": "abc"}
SECONDS = {"start_up": 3.0, "step": 50.0, "wait": 5.0, "compile": 20.0, "extract": 10.0, "lost": 1.0}
VERSION_0_1_0 = {
    "images": "digest",
    "phase": 1,
    "data": {"at": 7},
    "cut": 2,
    "tests": [{**TEST, "cut": 0}],
    "multipliers": {"top/kernel": 0.5},
    "spans": [{"steps": [0, 4], "cut": 0, "boundary": None}],
    "span_start": 4,
    "ended_cut": 3,
    "tally": {"extracted": 48, "extract_seconds": 4.0, "compile_seconds": 6.0, "train_seconds": 8.0, **EPOCH},
    "results": [{"name": "head"}],
    "seconds": SECONDS,
    "saved": 1700000000.0,
}


def test_progress_of_version_0_1_0_is_read():
    progress = RunProgress.from_json(json.loads(json.dumps(VERSION_0_1_0)))
    assert (progress.phase, progress.data, progress.span_start) == (1, {"at": 7}, 4)
    assert (progress.frozen_depth, progress.ended_frozen_depth, progress.extracted) == (2, 3, 48)
    assert progress.spans == [{"steps": [0, 4], "frozen_depth": 0, "boundary": None}]
    assert progress.history == [Measured(**{**TEST, "blocks": ("stem", "top"), "frozen_depth": 0})]
    assert EpochTotals(**progress.epoch) == EpochTotals(**EPOCH)
    spent = Goodput({**SECONDS, "step": 51.0}).since(progress.clock_start)
    assert (spent["extract"], spent["compile"], spent["step"] + spent["wait"]) == (4.0, 6.0, 8.0 + 1.0)


def test_progress_of_version_0_1_0_between_phases_is_read():
    start = {**VERSION_0_1_0, "data": None, "cut": 0, "tests": [], "spans": [], "span_start": 0, "tally": {}}
    progress = RunProgress.from_json(start)
    assert progress == RunProgress(
        images="digest",
        phase=1,
        multipliers={"top/kernel": 0.5},
        ended_frozen_depth=3,
        results=[{"name": "head"}],
        seconds=SECONDS,
        saved=1700000000.0,
    )


def test_todays_progress_is_read_as_it_was_written():
    progress = RunProgress.from_json(VERSION_0_1_0)
    assert RunProgress.from_json(json.loads(json.dumps(dataclasses.asdict(progress)))) == progress


def test_an_unknown_field_is_an_error():
    with pytest.raises(TypeError, match="surprise"):
        RunProgress.from_json({"surprise": 1})
