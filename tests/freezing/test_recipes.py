import pytest

from transfer_jax.freezing import feature_extraction, five_steps, frozen_base
from transfer_jax.freezing.labels import boundary, labels
from transfer_jax.freezing.recipes import (
    RECIPES,
    attention_only,
    auto_rgn,
    auto_snr,
    autofreeze,
    bitfit,
    egeria,
    freezeout,
    frofa,
    gradual_unfreezing,
    l2_sp,
    layer_decay,
    lora,
    lp_ft,
    norm_only,
    pipetransformer,
    surgical,
    top_k,
    wise_ft,
)
from transfer_jax.models.flat_arrays import split


def test_feature_extraction_requires_cached_features():
    (phase,) = feature_extraction(epochs=7, learning_rate=0.1).phases
    assert (phase.train, phase.epochs, phase.learning_rate) == ("head", 7, 0.1)
    assert (phase.cache, phase.augment) == ("require", False)


def test_frozen_base_augments_images():
    (phase,) = frozen_base(epochs=7, learning_rate=0.1).phases
    assert (phase.train, phase.epochs, phase.learning_rate) == ("head", 7, 0.1)
    assert phase.augment
    assert not phase.cacheable


def test_five_steps_trains_the_head_then_the_top(make_toy):
    model = make_toy()
    first, second = five_steps("top(1)", head_learning_rate=0.1, learning_rate=0.01, views=3).phases
    ends = [
        boundary(
            labels(split(model)[1], phase.selector, model.backbone.block_names), model.backbone.block_names
        )
        for phase in (first, second)
    ]
    assert ends == ["pre_logits", "blocks.11"]
    assert first.learning_rate > second.learning_rate
    assert second.views == 3
    assert second.norm == "frozen"


@pytest.mark.parametrize(
    ("schedule", "fields"),
    [
        (lp_ft(), {"train": "all_()", "norm": "frozen"}),
        (wise_ft(0.3), {"train": "all_()", "interpolate": 0.3}),
        (l2_sp(), {"train": "all_()", "l2_sp": 0.1, "l2_head": 0.01}),
        (layer_decay(0.65), {"train": "all_()", "layer_decay": 0.65, "decay_start": 1}),
        (layer_decay(0.65, start=2), {"layer_decay": 0.65, "decay_start": 2}),
        (top_k(3), {"train": "top(3)"}),
        (surgical("stem"), {"train": "(between('stem', 'stem') | head)"}),
        (surgical("a", "c"), {"train": "(between('a', 'c') | head)"}),
        (bitfit(), {"train": "(role('bias') | head)"}),
        (norm_only(), {"train": "(role('norm') | head)"}),
        (attention_only(), {"train": "(role('attention') | head)"}),
        (
            lora(rank=2, alpha=4.0),
            {
                "train": "head",
                "adapter": "lora(match('attn/qkv/kernel'), rank=2, alpha=4.0, parts='qv', name='lora')",
            },
        ),
        (auto_rgn(), {"train": "~role('norm')", "statistic": "rgn"}),
        (auto_snr(), {"train": "~role('norm')", "statistic": "snr"}),
        (autofreeze(), {"controller": "autofreeze", "tests_per_epoch": 4}),
        (pipetransformer(), {"controller": "pipetransformer", "tests_per_epoch": 1}),
        (egeria(), {"controller": "egeria"}),
    ],
)
def test_recipes_train_a_probe_then_the_part_of_the_paper(schedule, fields):
    first, second = schedule.phases
    assert (first.train, first.cache) == ("head", "require")
    assert {name: getattr(second, name) for name in fields} == fields
    assert second.learning_rate < first.learning_rate


@pytest.mark.parametrize("recipe", [lp_ft, wise_ft, l2_sp, bitfit, lora, auto_rgn, egeria])
def test_head_epochs_0_omits_the_probe(recipe):
    (phase,) = recipe(head_epochs=0, epochs=4, learning_rate=0.5, clip_norm=1.0).phases
    assert (phase.epochs, phase.learning_rate, phase.clip_norm) == (4, 0.5, 1.0)


def test_frofa_shifts_cached_features():
    (phase,) = frofa(0.2).phases
    assert (phase.train, phase.feature_brightness, phase.cache) == ("head", 0.2, "require")


def test_gradual_unfreezing_adds_one_group_each_epoch():
    schedule = gradual_unfreezing(("stem", "b", "c"), last_epochs=4, learning_rate=0.5)
    assert [(phase.train, phase.epochs) for phase in schedule.phases] == [
        ("head", 1),
        ("from_('c')", 1),
        ("from_('b')", 1),
        ("all_()", 4),
    ]
    for index, phase in enumerate(schedule.phases):
        assert (phase.shape, phase.clock, phase.warmup) == ("slanted", "schedule", 0.1)
        assert (phase.layer_decay, phase.groups) == (1 / 2.6, ("stem", "b", "c"))
        assert schedule.clock(index) == (index, 7)
    assert [phase.keep_epoch for phase in schedule.phases] == ["last", "last", "last", "auto"]
    assert {phase.keep_epoch for phase in gradual_unfreezing(("a", "b"), keep_epoch="best").phases} == {
        "best"
    }
    with pytest.raises(ValueError, match="at least one group"):
        gradual_unfreezing(())


def test_freezeout_freezes_blocks_at_their_times():
    # ends: (0.5 + 0.5 i / 3) ** 3 of 10 epochs are 1.25, 2.96, 5.79 and 10
    schedule = freezeout(("a", "b", "c"), epochs=10, first=0.5)
    assert [(phase.train, phase.epochs) for phase in schedule.phases] == [
        ("from_('a')", 2),
        ("from_('b')", 1),
        ("from_('c')", 3),
        ("head", 4),
    ]
    assert {phase.clock for phase in schedule.phases} == {"schedule"}
    assert schedule.clock(3) == (6, 10)


def test_freezeout_of_one_epoch_has_one_phase():
    assert [phase.train for phase in freezeout(("a", "b"), epochs=1).phases] == ["from_('a')"]


def test_recipes_by_name():
    assert len(RECIPES) == 22
    assert {name: recipe.__name__ for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}
