import dataclasses

import numpy as np
import pytest

from transfer_jax.runs.phase_totals import PhaseTotals

IMAGES = np.array([3, 1, 2])


def test_means_of_an_epoch():
    tally = PhaseTotals()
    for loss in (1.0, 2.0, 6.0):
        tally.add({"loss": loss, "accuracy": 0.5}, {"head": loss / 10}, IMAGES)
    found = tally.end_epoch()
    assert found.pop("order")
    assert found == {"loss": 3.0, "accuracy": 0.5, "rates": {"head": pytest.approx(0.3)}}
    tally.add({"loss": 7.0}, {}, IMAGES)
    assert tally.end_epoch()["loss"] == 7.0
    assert tally.steps == 0


def test_an_epoch_goes_on_behind_a_checkpoint():
    tally, whole = PhaseTotals(train_seconds=1.5), PhaseTotals()
    tally.add({"loss": 1.0}, {"top": 2.0}, IMAGES)
    again = PhaseTotals(**dataclasses.asdict(tally))
    again.add({"loss": 2.0}, {"top": 4.0}, IMAGES + 1)
    assert again.train_seconds == 1.5
    whole.add({"loss": 1.0}, {"top": 2.0}, IMAGES)
    whole.add({"loss": 2.0}, {"top": 4.0}, IMAGES + 1)
    found = again.end_epoch()
    assert found == whole.end_epoch()
    assert (found["loss"], found["rates"]) == (1.5, {"top": 3.0})


def test_another_order_has_another_hash():
    orders = set()
    for images in (IMAGES, IMAGES[::-1], IMAGES[:2]):
        tally = PhaseTotals()
        tally.add({}, {}, images)
        orders.add(tally.end_epoch()["order"])
    assert len(orders) == 3
