import dataclasses
import json

import pytest

from transfer_jax import TrainConfig, create_model, fit
from transfer_jax.freezing import five_steps
from transfer_jax.freezing.recipes import (
    autofreeze,
    bitfit,
    freezeout,
    gradual_unfreezing,
    layer_decay,
    lora,
    surgical,
)
from transfer_jax.models.functional import split
from transfer_jax.report.timeline import Timeline
from transfer_jax.training.plan import plan

TINY = "efficientnet_lite_tiny"
BLOCKS = ("stem", *(f"blocks.{index}" for index in range(8)), "top")
SHORT = {"head_epochs": 1, "epochs": 2, "learning_rate": 1e-3}
SCHEDULES = {
    "five steps": five_steps("top(2)", head_epochs=1, epochs=2, views=1),
    "gradual": gradual_unfreezing(("stem", "blocks.4", "top"), last_epochs=1),
    "decay": layer_decay(0.5, **SHORT),
    "freezeout": freezeout(BLOCKS, epochs=3, first=0.4),
    "surgical": surgical("blocks.2", "blocks.4", **SHORT),
    "bitfit": bitfit(**SHORT),
    "lora": lora("role('kernel')", **SHORT),
}


def config_of(folder, schedule, **changes) -> TrainConfig:
    settings = {"model": TINY, "weights": "none", "batch_size": 12, "threads": 1, **changes}
    return TrainConfig(images=str(folder), schedule=schedule, **settings)


def test_a_plan_says_what_trains_by_block(image_folder):
    found = plan(config_of(image_folder, five_steps("top(2)", head_epochs=4, epochs=2, learning_rate=1e-4)))
    assert found.blocks == (*BLOCKS, "head")
    assert [parts.steps for parts in found.phases] == [4 * 3, 2 * 3]
    sizes = {path: array.size for path, array in split(create_model(TINY, 3))[1].items()}
    for block in found.blocks:
        whole = sum(size for path, size in sizes.items() if f"/{block}/" in f"/{path}")
        assert found.parameters(block) == whole
        first, second = (found.of_block(index, block) for index in (0, 1))
        assert first.trainable == (whole if block == "head" else 0)
        assert second.trainable == (whole if block in ("blocks.7", "top", "head") else 0)
        assert (second.rate > 0) == (second.trainable > 0)
    assert found.of_block(0, "head").rate == pytest.approx(3e-3, rel=0.01)


@pytest.mark.parametrize("name", SCHEDULES)
def test_what_is_carried_out_is_what_was_planned(image_folder, tmp_path, name):
    config = config_of(image_folder, SCHEDULES[name])
    planned = plan(config).timeline()
    fit(config, tmp_path)
    executed = Timeline.executed(tmp_path, planned.blocks)
    assert [(epoch.phase, epoch.epoch) for epoch in executed.epochs] == [
        (epoch.phase, epoch.epoch) for epoch in planned.epochs
    ]
    for found, wanted in zip(executed.epochs, planned.epochs, strict=True):
        assert found.rates == pytest.approx(wanted.rates, rel=1e-6)
    assert (tmp_path / "timeline.png").stat().st_size > 5000


def test_a_controller_freezes_more_than_was_planned(image_folder, tmp_path):
    config = config_of(image_folder, autofreeze(head_epochs=1, epochs=2, learning_rate=1e-3))
    planned = plan(config).timeline()
    fit(config, tmp_path)
    tests = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    cuts = [test["next_cut"] for test in tests if test["kind"] == "test"]
    assert len(cuts) == 5  # three steps an epoch are too few for four tests, and none at the very end
    last = Timeline.executed(tmp_path, planned.blocks).epochs[-1].rates
    frozen = min(cuts[-3:])
    assert set(last) <= set(planned.epochs[-1].rates)
    assert not {*BLOCKS[:frozen]} & {*last}


def test_a_plan_checks_first(image_folder):
    schedule = five_steps("from_('layer4')")
    with pytest.raises(ValueError, match=r"matches no block; the blocks are stem, blocks\.0"):
        plan(config_of(image_folder, schedule))
    phase = dataclasses.replace(five_steps("top(1)").phases[0], controller="sideways")
    with pytest.raises(ValueError, match="no controller 'sideways'"):
        plan(config_of(image_folder, dataclasses.replace(schedule, phases=(phase,))))
