"""Sentences on the epochs that phases keep."""

import pytest

from transfer_jax.report.kept_epochs import kept_epoch_text

TOP = {"name": "top", "epochs": 14, "planned_epochs": 14, "kept_by": "log_loss"}
TOP |= {"start_value": 0.5, "end_value": 0.9}
HEAD = {**TOP, "name": "head", "start_value": None}
GAIN = {"gain": 0.1, "gain_error": 0.02, "gain_epoch": 9}
UNCLEAR = {**GAIN, "gain_error": 0.06}
HEADLINE = {"headline": "accuracy", "headline_gain": 0.03, "headline_gain_error": 0.02}


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        ({**TOP, "kept_by": "", "kept_epoch": 14}, ""),
        (
            {**TOP, "kept_by": "", "kept_epoch": 14, "planned_epochs": 20},
            "keeps epoch 14; it ended early, after 14 of 20 epochs",
        ),
        (
            {**TOP, "kept_epoch": 0, "kept_value": 0.5},
            "is undone: none of its 14 epochs has a better log loss than 0.5 before it (0.9 after the last "
            "one)",
        ),
        (
            {**TOP, **UNCLEAR, "kept_epoch": 0, "kept_value": 0.5},
            "is undone: epoch 9 of 14 is the best one, but its gain of 0.1 ± 0.06 is not above two standard "
            "errors",
        ),
        (
            {**TOP, **UNCLEAR, **HEADLINE, "kept_epoch": 0, "kept_value": 0.5},
            "is undone: epoch 9 of 14 is the best one, but its gains of 0.1 ± 0.06 in log loss and 0.03 ± "
            "0.02 in accuracy are not above two standard errors",
        ),
        (
            {**TOP, **UNCLEAR, **HEADLINE, "kept_epoch": 9, "kept_value": 0.4},
            "keeps epoch 9 of 14: log loss 0.4, 0.5 before the phase (a gain of 0.1 ± 0.06 in log loss and "
            "0.03 ± 0.02 in accuracy), 0.9 after the last epoch",
        ),
        (
            {**TOP, **GAIN, "kept_epoch": 9, "kept_value": 0.4},
            "keeps epoch 9 of 14: log loss 0.4, 0.5 before the phase (a gain of 0.1 ± 0.02), 0.9 after the "
            "last epoch",
        ),
        (
            {**HEAD, **GAIN, "kept_epoch": 9, "kept_value": 0.8},
            "keeps epoch 9 of 14: log loss 0.8, 0.9 after the last epoch (a gain of 0.1 ± 0.02)",
        ),
        (
            {**HEAD, **UNCLEAR, "kept_epoch": 14, "kept_value": 0.9},
            "keeps its last epoch, 14: log loss 0.9; epoch 9 is better, but its gain of 0.1 ± 0.06 is not "
            "above two standard errors",
        ),
    ],
)
def test_sentences_on_the_epoch_that_is_kept(phase, text):
    assert kept_epoch_text(phase) == (f"phase {phase['name']!r} {text}" if text else "")
