"""Rows of training steps that are timed."""

import json

import jax
import pytest

from transfer_jax.planning.peaks import Peak
from transfer_jax.runs import bench as module
from transfer_jax.runs.bench import Bench, BenchRow

PEAK = Peak(1e12, "published")
SMALL = {"models": ("toy",), "batch_sizes": (4,), "seconds": 0.01, "classes": 3}


def rows(**settings) -> list[BenchRow]:
    return [*Bench(**{**SMALL, **settings}).rows(PEAK)]


@pytest.mark.usefixtures("toy")
def test_each_selector_is_timed_on_images_and_on_features():
    found = rows(trains=("head", "all_()"), cached=True)
    assert [(row.trains, row.boundary) for row in found] == [
        ("head", None),
        ("head", "pre_logits"),
        ("all_()", None),
    ]
    for row in found:
        assert not row.error
        assert row.images_per_second == pytest.approx(row.batch_size / row.step_seconds)
        assert row.mfu == pytest.approx(row.flops / row.step_seconds / 1e12)
        assert row.steps >= 5
        assert row.compile_seconds > 0
        assert row.peak_bytes
        assert row.input_bound is None
    head, cached, everything = found
    products = 2 * (2 * 4 * 16 * 3)  # Forward, and the gradient of the kernel; the loss has a few more.
    assert products <= cached.flops < 1.1 * products
    assert everything.flops > 2.5 * head.flops


@pytest.mark.usefixtures("toy")
def test_batches_of_several_sizes(monkeypatch):
    monkeypatch.setattr(module, "time_step", lambda run, parts, seconds: _failed(run.batch_size))
    assert [row.batch_size for row in rows(trains=("head",), batch_sizes=(4, 2, 8))] == [4, 2, 8]


def _failed(size: int) -> None:
    raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {size}")


@pytest.mark.usefixtures("toy")
def test_a_frozen_part_in_int8():
    (row,) = rows(trains=("head",), prefix_precision="int8")
    assert not row.error
    assert row.steps >= 5


@pytest.mark.usefixtures("toy")
def test_reading_is_compared_with_the_steps(image_folder):
    uncached, cached = rows(trains=("head",), cached=True, images=str(image_folder))
    assert uncached.images_read
    assert uncached.input_bound == (uncached.images_read < uncached.images_per_second)
    assert cached.images_read is None


@pytest.mark.usefixtures("toy")
def test_a_step_that_does_not_fit_is_a_row(monkeypatch):
    def exhausted(*args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(module, "time_step", exhausted)
    (row,) = rows(trains=("head",))
    assert row.error == "out of memory"
    assert row.to_json()["images_per_second"] is None
    json.dumps(row.to_json(), allow_nan=False)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ("toyy",)}, "toyy"),
        ({"trains": ("head", "blocks.99")}, "blocks.99"),
        ({"batch_sizes": (0,)}, "batch_sizes must be at least 1, got 0"),
        ({"trains": ()}, "trains is empty"),
        ({"classes": 1}, "classes must be at least 2, got 1"),
        ({"seconds": 0.0}, "seconds must be above 0, got 0"),
    ],
)
def test_errors_come_before_anything_is_timed(settings, message, monkeypatch):
    monkeypatch.setattr(module, "time_step", None)
    with pytest.raises(ValueError, match=message):
        rows(**settings)
