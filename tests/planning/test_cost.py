import dataclasses
import json
from pathlib import Path

import jax
import pytest

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.planning.cost import PhaseCost
from transfer_jax.planning.cost import estimate_costs as estimate
from transfer_jax.report.progress import Silent
from transfer_jax.runs.checkpointing import finished_phases
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve

pytestmark = pytest.mark.usefixtures("toy")
TOP = "from_('blocks.11')"


def config_of(folder, *phases, **changes) -> TrainConfig:
    settings = {
        "model": "toy",
        "weights": "none",
        "batch_size": 12,
        "threads": 1,
        **changes,
    }
    return TrainConfig(images=str(folder), schedule=Schedule(phases), **settings)


def estimate_costs(config: TrainConfig, *, exact: bool = False) -> tuple[PhaseCost, ...]:
    return estimate(load_network(resolve(config), Path("nowhere")), Silent(), exact=exact)


def test_the_sizes_are_those_of_the_run(image_folder, tmp_path):
    head = Phase(name="head", train="head", epochs=3, learning_rate=1e-2)
    top = Phase(name="top", train=TOP, epochs=2, learning_rate=1e-3, augment=True, views=2)
    live = Phase(name="live", train="all_()", epochs=1, learning_rate=1e-3)
    config = config_of(image_folder, head, top, live)
    costs, quick = estimate_costs(config, exact=True), estimate_costs(config)
    assert list(tmp_path.iterdir()) == []
    result = fit(config, tmp_path / "run")
    assert finished_phases(tmp_path / "run") == result.phases
    for cost, phase in zip(costs, result.phases, strict=True):
        assert (cost.name, cost.boundary) == (phase.name, phase.boundary)
        assert cost.rows == phase.extracted
        assert cost.step_flops == phase.step_flops
        assert cost.optimizer_bytes == phase.optimizer_bytes
        assert cost.peak_bytes
        assert cost.peak_bytes > cost.optimizer_bytes
        assert cost.compile_seconds > 0
        assert cost.train_seconds > 0
        assert (cost.extract_seconds > 0) == (cost.tier is not None) == (cost.boundary is not None)
        assert cost.tier in (None, "memory" if jax.default_backend() == "cpu" else "device")
    assert [cost.measured for cost in costs] == [True] * 3
    assert [cost.measured for cost in quick] == [True, True, False]
    same = (
        "boundary",
        "tier",
        "rows",
        "cache_bytes",
        "step_flops",
        "optimizer_bytes",
        "programs",
        "validations",
    )
    for one, other in zip(costs, quick, strict=True):
        for name in same:
            assert getattr(one, name) == getattr(other, name), name
        assert (other.peak_bytes == one.peak_bytes) if other.measured else (other.peak_bytes is None)
        assert other.compile_seconds > 0
        assert other.train_seconds > 0
        assert other.validate_seconds > 0
        assert (other.extract_seconds > 0) == (one.extract_seconds > 0)
        assert (other.images_needed is None) == (one.images_needed is None)
    shards = [*(tmp_path / "run" / "features").glob("*/shard-*.npy")]
    assert shards
    assert sum(cost.cache_bytes for cost in costs) == pytest.approx(
        sum(path.stat().st_size for path in shards), rel=0.1
    )
    assert [cost.programs for cost in costs] == [3, 3, 2]
    assert costs[2].reason == "its lowest block trains"
    assert [cost.images_read for cost in costs[:2]] == [None, None]
    assert (costs[2].images_read or 0) > 0
    assert 12 / (costs[2].images_needed or 0) * 3 <= 1.2 * costs[2].train_seconds  # Three steps.
    for phase, cost in zip(("head", "top", "live"), costs, strict=True):
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        scored = [each for each in map(json.loads, lines) if each["kind"] == "evaluation"]
        assert cost.validations == sum(each["phase"] == phase for each in scored)
        assert 0 < cost.validate_seconds < cost.train_seconds


def test_features_are_computed_once(image_folder):
    def phase(name, **others) -> Phase:
        return Phase(name=name, epochs=2, learning_rate=1e-3, **{"train": "head", **others})

    views = {"augment": True, "views": 2}
    costs = estimate_costs(
        config_of(
            image_folder, phase("a"), phase("b"), phase("c", **views), phase("d", train=TOP), phase("e")
        )
    )
    plain = costs[0].rows
    train = plain * 3 // 4
    # Phase c reuses the features of the validation images. Phase e reuses none, because d trained the top.
    assert [cost.rows for cost in costs] == [plain, 0, 2 * train, plain, plain]
    assert costs[0].break_even == pytest.approx(plain / train)


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.extended)])
def test_rates_by_gradients_are_timed(image_folder, exact):
    phase = Phase(name="rgn", train="all_()", epochs=2, learning_rate=1e-3, statistic="rgn")
    (cost,) = estimate_costs(config_of(image_folder, phase), exact=exact)
    assert cost.measured
    assert cost.programs == 3
    assert cost.boundary is None


def test_steps_that_are_not_compiled_take_time_in_proportion_to_their_work(image_folder):
    """The smallest representative step is compiled, and another optimizer adds no work that counts."""
    one = Phase(name="one", train="all_()", epochs=1, learning_rate=1e-3, optimizer="sgd")
    four = dataclasses.replace(one, name="four", epochs=4, optimizer="adam")
    half = Phase(name="half", train=TOP, epochs=1, learning_rate=1e-3)
    costs = estimate_costs(config_of(image_folder, one, four, half))
    assert [cost.measured for cost in costs] == [False, False, True]
    assert costs[0].step_flops == costs[1].step_flops > costs[2].step_flops
    assert costs[1].train_seconds == pytest.approx(4 * costs[0].train_seconds)
    assert costs[0].train_seconds > costs[2].train_seconds
    assert costs[1].images_needed == pytest.approx(costs[0].images_needed)
