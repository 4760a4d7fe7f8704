import dataclasses

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.planning.network import check_config
from transfer_jax.runs.workdir import differences
from transfer_jax.studies.default_config import default_config
from transfer_jax.studies.presets import PRESETS, blocks_of, make_study

BLOCKS = ("stem", *(f"blocks.{index}" for index in range(8)), "top")
SCHEDULE = Schedule(
    (
        Phase(name="head", train="head", epochs=3, learning_rate=0.01),
        Phase(name="top", train="top(1)", epochs=2, learning_rate=1e-3),
    )
)


@pytest.fixture
def base(image_folder) -> TrainConfig:
    return TrainConfig(
        images=str(image_folder),
        model="efficientnet_lite_tiny",
        weights="none",
        schedule=SCHEDULE,
        batch_size=12,
    )


def trained(study) -> list[str]:
    return [arm.config.schedule.phases[-1].train for arm in study.arms]


def test_depths_are_all_blocks_from_the_top(base):
    study = make_study("unfreeze_depth", base, range(2))
    assert blocks_of(base) == BLOCKS
    assert trained(study) == ["head", *(f"from_({block!r})" for block in reversed(BLOCKS))]
    assert [arm.factors["depth"] for arm in study.arms] == list(range(11))
    assert (study.baseline, study.ordered, len(study.trials)) == (0, True, 22)
    assert "10 blocks of efficientnet_lite_tiny" in study.question


def test_arms_are_paired_by_construction(base):
    """Trials of a seed differ only in what the last phase trains."""
    study = make_study("unfreeze_depth", base, (3, 5))
    trials = {trial.name: trial for trial in study.trials}
    first, other = trials["00-head-only-seed5"], trials["10-stem-seed5"]
    (change,) = differences(first.config, other.config)
    assert change == "schedule.phases.1.train was 'head', now \"from_('stem')\""
    assert first.config.seed == 5
    assert first.config.schedule.phases[0] == base.schedule.phases[0]


@pytest.mark.parametrize("name", PRESETS)
def test_every_trial_can_be_run(base, name):
    study = make_study(name, base, range(2))
    for trial in study.trials:
        check_config(trial.config)
        assert trial.config.shared_features
        assert trial.config.score_training
        assert trial.config.eval_every >= 1
    assert len({trial.name for trial in study.trials}) == len(study.trials)


def test_surgical_spans_cover_all_blocks_once(base):
    study = make_study("surgical", base, range(1))
    labels = [arm.label for arm in study.arms]
    assert (labels[0], labels[-1]) == ("head only", "all blocks")
    spans = [label.split(" to ") for label in labels[1:-1]]
    assert (spans[0][0], spans[-1][-1]) == ("stem", "top")
    ends = [BLOCKS.index(span[-1]) for span in spans]
    assert [BLOCKS.index(span[0]) for span in spans] == [0, *(end + 1 for end in ends[:-1])]


def test_yosinski_transfers_below_and_forgets_above(base):
    study = make_study("yosinski", base, range(1))
    arms = {arm.name: arm.config for arm in study.arms}
    assert arms["00-fine-tuned"].reinitialize == "(from_('stem') & ~head)"
    assert arms["03-frozen"].reinitialize == "(from_('blocks.2') & ~head)"
    assert arms["03-frozen"].schedule.phases[-1].train == "from_('blocks.2')"
    assert arms["03-fine-tuned"].schedule.phases[-1].train == "all_()"
    assert arms["10-frozen"].reinitialize == arms["10-fine-tuned"].reinitialize == ""
    assert "00-frozen" not in arms


def test_smaller_samples_train_for_as_many_steps(base):
    study = PRESETS["sample_size"](base, (0,), sizes=(3,), depths=(0.0, 1.0))
    assert [(arm.factors["depth"], arm.factors["images_per_class"]) for arm in study.arms] == [
        (0, "3"),
        (10, "3"),
        (0, "all"),
        (10, "all"),
    ]
    few, _, all_, _ = (arm.config for arm in study.arms)
    assert (few.images_per_class, all_.images_per_class) == (3, None)
    assert [phase.epochs for phase in few.schedule.phases] == [9, 6]  # One step per epoch instead of three.
    assert (few.eval_every, all_.eval_every) == (3, 1)


def test_sizes_that_no_class_has_more_of_are_left_out(base):
    study = PRESETS["sample_size"](
        base, (0,), sizes=(3, 12, 300), depths=(0.0,)
    )  # 12 of each class are training images.
    assert [arm.factors["images_per_class"] for arm in study.arms] == ["3", "all"]


def test_recipes_leave_out_what_the_network_has_not(base):
    study = make_study("recipes", base, range(1))
    names = {arm.name for arm in study.arms}
    assert {"feature_extraction", "five_steps", "lp_ft", "gradual_unfreezing", "freezeout"} <= names
    assert not {"attention_only", "lora"} & names
    assert [arm.config.taps for arm in study.arms if arm.name == "head2toe"] == [True]


def test_seeds_may_vary_the_training_alone(base):
    both, alone = make_study("seeds", base, range(3)).arms
    assert (both.config.split_seed, alone.config.split_seed) == (None, 0)


def test_some_levels_and_more_images(base, image_folder):
    study = make_study("unfreeze_depth", base, (0,), levels=("10",))
    assert [arm.factors["depth"] for arm in study.arms] == [0, 10]
    other = f"folder:{image_folder}"
    both = make_study("unfreeze_depth", base, 0, levels="10", images=other)
    assert both == make_study("unfreeze_depth", base, (0,), levels=("10",), images=(other,))
    assert [arm.factors["images"] for arm in both.arms] == [base.images, base.images, other, other]
    with pytest.raises(ValueError, match="has no depth '11'; it has 0, 1, 2"):
        make_study("unfreeze_depth", base, (0,), levels=("11",))
    with pytest.raises(ValueError, match="unknown study 'depth'; choose one of unfreeze_depth, recipes"):
        make_study("depth", base, (0,))


def test_the_default_can_be_cached_everywhere():
    config = default_config("elpv")
    assert not any(phase.augment for phase in config.schedule.phases)
    assert [phase.name for phase in config.schedule.phases] == ["head", "top"]
    check_config(dataclasses.replace(config, model="efficientnet_lite_tiny", weights="none"))
