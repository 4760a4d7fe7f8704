import dataclasses

import pytest

from transfer_jax import TrainConfig, create_model, fit
from transfer_jax.freezing import Schedule, five_steps
from transfer_jax.freezing.recipes import RECIPES, autofreeze
from transfer_jax.models.flat_arrays import split
from transfer_jax.planning.plan import plan
from transfer_jax.report.rate_timeline import Timeline
from transfer_jax.runs.resolve import resolve

TOY, NANO = "toy", "vit_nano_patch8_32"
BLOCKS = ("stem", "blocks.1", "blocks.11", "top")
NANO_BLOCKS = ("embed", *(f"blocks.{index}" for index in range(3)), "norm")
CONTROLLED = ("autofreeze", "pipetransformer", "egeria")
pytestmark = pytest.mark.usefixtures("toy")
FIRST = ("feature_extraction", "five_steps", "freezeout", "auto_rgn", "lora", "head2toe")
"""The recipes of `make test`."""
ON_NANO = ("attention_only", "gradual_unfreezing", "head2toe", "lora", "bitfit")


def config_of(folder, schedule, **changes) -> TrainConfig:
    settings = {"model": TOY, "weights": "none", "batch_size": 12, "threads": 1, **changes}
    return TrainConfig(images=str(folder), schedule=schedule, **settings)


def test_a_plan_has_the_trainable_parameters_of_each_block(image_folder):
    found = plan(
        resolve(config_of(image_folder, five_steps("top(2)", head_epochs=4, epochs=2, learning_rate=1e-4)))
    )
    assert found.blocks == (*BLOCKS, "head")
    assert [parts.steps for parts in found.phases] == [4 * 3, 2 * 3]
    sizes = {path: array.size for path, array in split(create_model(TOY, 3))[1].items()}
    for block in found.blocks:
        whole = sum(size for path, size in sizes.items() if f"/{block}/" in f"/{path}")
        assert found.parameters(block) == whole
        first, second = (found.of_block(index, block) for index in (0, 1))
        assert first.trainable == (whole if block == "head" else 0)
        assert second.trainable == (whole if block in ("blocks.11", "top", "head") else 0)
        assert (second.rate > 0) == (second.trainable > 0)
    assert found.of_block(0, "head").rate == pytest.approx(3e-3, rel=0.01)


def short(name: str, blocks: tuple[str, ...]) -> Schedule:
    """A recipe by its name, in a few epochs."""
    one = {"epochs": 4, "learning_rate": 3e-3}
    two = {**one, "head_epochs": 2}
    settings = {
        "feature_extraction": one,
        "frozen_base": one,
        "frofa": one,
        "head2toe": one,
        "five_steps": {"unfreeze": "top(2)", "views": 1, **two},
        "gradual_unfreezing": {
            "groups": (blocks[0], blocks[2], blocks[-1]),
            "last_epochs": 3,
            "learning_rate": 3e-3,
        },
        "freezeout": {"blocks": blocks, "first": 0.4, **one},
        "top_k": {"count": 2, **two},
        "surgical": {"first": blocks[1], "last": blocks[2], **two},
        "lora": {"kernels": "role('kernel')", **two},
    }
    return RECIPES[name](**settings.get(name, two))


def test_a_network_without_the_parameters_of_a_recipe_is_an_error(image_folder):
    with pytest.raises(ValueError, match=r"phase 'part': role\('attention'\) matches none"):
        plan(resolve(config_of(image_folder, short("attention_only", BLOCKS))))


@pytest.mark.parametrize(
    ("name", "network"),
    [
        pytest.param(name, network, marks=() if name in FIRST else pytest.mark.extended)
        for network, names in ((TOY, [name for name in RECIPES if name not in ON_NANO]), (NANO, ON_NANO))
        for name in names
        if name not in CONTROLLED
    ],
)
def test_a_run_follows_its_plan(image_folder, tmp_path, name, network, logged):
    schedule = short(name, BLOCKS if network == TOY else NANO_BLOCKS)
    config = config_of(image_folder, schedule, model=network, taps=name == "head2toe")
    planned = plan(resolve(config)).timeline()
    fit(config, tmp_path)
    executed = Timeline.executed(tmp_path, planned.blocks)
    assert [(epoch.phase, epoch.epoch) for epoch in executed.epochs] == [
        (epoch.phase, epoch.epoch) for epoch in planned.epochs
    ]
    for found, wanted in zip(executed.epochs, planned.epochs, strict=True):
        if name not in ("auto_rgn", "auto_snr"):
            assert found.rates == pytest.approx(wanted.rates, rel=1e-6)
        else:  # The rates are scaled by measurements.
            assert found.rates.keys() == wanted.rates.keys()
            assert all(found.rates[block] <= wanted.rates[block] * 1.000001 for block in found.rates)
    losses = [line["loss"] for line in logged(tmp_path, "train")]
    assert losses[-1] < losses[0]
    assert (tmp_path / "timeline.png").stat().st_size > 5000


def test_a_controller_freezes_more_than_the_plan(image_folder, tmp_path, logged):
    config = config_of(image_folder, autofreeze(head_epochs=1, epochs=2, learning_rate=1e-3))
    planned = plan(resolve(config)).timeline()
    fit(config, tmp_path)
    cuts = [test["next_frozen_depth"] for test in logged(tmp_path, "test")]
    assert len(cuts) == 5  # Three steps an epoch are too few for four tests, and there is none at the end.
    last = Timeline.executed(tmp_path, planned.blocks).epochs[-1].rates
    frozen = min(cuts[-3:])
    assert set(last) <= set(planned.epochs[-1].rates)
    assert not {*BLOCKS[:frozen]} & {*last}


def test_invalid_schedules_are_errors(image_folder):
    schedule = five_steps("from_('layer4')")
    with pytest.raises(ValueError, match=r"matches no block; the blocks are stem, blocks\.1"):
        plan(resolve(config_of(image_folder, schedule)))
    phase = dataclasses.replace(five_steps("top(1)").phases[0], controller="sideways")
    with pytest.raises(ValueError, match="unknown controller 'sideways'"):
        plan(resolve(config_of(image_folder, dataclasses.replace(schedule, phases=(phase,)))))
