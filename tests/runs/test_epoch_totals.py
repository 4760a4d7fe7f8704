import dataclasses

import numpy as np
import pytest

from transfer_jax.runs.epoch_totals import EpochTotals

IMAGES = np.array([3, 1, 2])


def test_means_of_an_epoch():
    totals = EpochTotals()
    for loss in (1.0, 2.0, 6.0):
        totals.add({"loss": loss, "accuracy": 0.5}, {"head": loss / 10}, IMAGES)
    means = totals.end_epoch()
    assert means.pop("order")
    assert means == {"loss": 3.0, "accuracy": 0.5, "rates": {"head": pytest.approx(0.3)}}
    totals.add({"loss": 7.0}, {}, IMAGES)
    assert totals.end_epoch()["loss"] == 7.0
    assert totals.steps == 0


def test_an_epoch_resumes_from_its_stored_fields():
    totals, uninterrupted = EpochTotals(), EpochTotals()
    totals.add({"loss": 1.0}, {"top": 2.0}, IMAGES)
    resumed = EpochTotals(**dataclasses.asdict(totals))
    resumed.add({"loss": 2.0}, {"top": 4.0}, IMAGES + 1)
    uninterrupted.add({"loss": 1.0}, {"top": 2.0}, IMAGES)
    uninterrupted.add({"loss": 2.0}, {"top": 4.0}, IMAGES + 1)
    means = resumed.end_epoch()
    assert means == uninterrupted.end_epoch()
    assert (means["loss"], means["rates"]) == (1.5, {"top": 3.0})


def test_another_order_of_images_has_another_hash():
    orders = set()
    for images in (IMAGES, IMAGES[::-1], IMAGES[:2]):
        totals = EpochTotals()
        totals.add({}, {}, images)
        orders.add(totals.end_epoch()["order"])
    assert len(orders) == 3
