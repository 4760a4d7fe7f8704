import dataclasses
import re

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing.recipes import feature_extraction, five_steps, layer_decay
from transfer_jax.planning.defaults import Facts, choose

CONFIG = TrainConfig(images="photographs")
FACTS = Facts(
    counts=(100, 100),
    own_split=None,
    pixels=300,
    expected=224,
    blocks=18,
    accelerator=False,
    duplicates=0,
)
ALL = ("val_fraction", "keep_together", "image_size", "schedule", "batch_size")


def chosen(given=(), config=CONFIG, **facts):
    config, choices = choose(dataclasses.replace(FACTS, **facts), config, given)
    return config, {choice.field: choice for choice in choices}


def test_every_choice_is_in_the_config_and_has_a_reason():
    config, choices = chosen(duplicates=7)
    assert [*choices] == [*ALL, "keep_epoch"]
    for field in ALL:
        assert str(getattr(config, field)) == str(choices[field].value)
        assert str(choices[field]).startswith(field.replace("_", " "))
        assert "\n" not in str(choices[field])
        assert any(letter.isdigit() for letter in choices[field].why) or field == "batch_size"


@pytest.mark.parametrize("field", ALL)
def test_given_fields_are_not_changed(field):
    given = {
        "val_fraction": 0.4,
        "keep_together": False,
        "image_size": 100,
        "schedule": five_steps("top(3)"),
        "batch_size": 5,
    }[field]
    config, choices = chosen([field], dataclasses.replace(CONFIG, **{field: given}), duplicates=7)
    assert getattr(config, field) == given
    assert {*choices} == {*ALL, "keep_epoch"} - {field}


@pytest.mark.parametrize(
    ("counts", "fraction", "reason"),
    [
        ((100, 100), 0.25, "50 of 200 images for validation, at least 25 of each class"),
        ((4, 4, 4), 0.25, "3 of 12"),
        ((2, 2, 2), 0.5, "3 of 6"),
        ((2, 2, 2, 2, 2), 0.5, "5 of 10"),
        ((10_000, 10_000), 0.13, "2,600 of 20,000"),
        ((500_000, 500_000), 0.05, "50,000 of 1,000,000"),
        ((100,) * 1000, 0.25, "25,000 of 100,000"),
        ((1_000,) * 1000, 0.05, "50,000 of 1,000,000"),
    ],
)
def test_the_number_of_validation_images(counts, fraction, reason):
    config, choices = chosen(counts=counts)
    assert config.val_fraction == fraction
    assert reason in choices["val_fraction"].why


@pytest.mark.parametrize(
    ("counts", "units", "given", "fraction", "reason"),
    [
        (
            (20, 20, 20),
            (20, 20, 1),
            [],
            0.25,
            "10 of 60 images for validation, at least 5 of each class apart",
        ),
        ((20, 20), (2, 2), [], 0.5, "about 20 of 40"),  # A quarter of four groups would be one.
        ((20, 20), (2, 2), ["keep_together"], 0.25, "about 10 of 40"),
        ((9, 9, 1, 1), None, [], 0.25, "5 of 20 .* of each class apart from 2 with one image"),
        ((1, 1), None, [], 0.25, "0 of 2 images"),  # The split says why this is impossible.
        ((3,) * 10_000, None, [], 0.34, "10,200 of 30,000"),
    ],
)
def test_classes_that_cannot_be_divided_do_not_count(counts, units, given, fraction, reason):
    duplicates = 20 if units else None
    config, choices = chosen(given, counts=counts, units=units, duplicates=duplicates)
    assert config.val_fraction == fraction
    assert re.search(reason, choices["val_fraction"].why)


def test_the_interval_is_that_of_a_binomial_proportion():
    assert "80 ± 11.1 %" in chosen()[1]["val_fraction"].why  # 1.96 sqrt(0.8 0.2 / 50)
    assert "80 ± 1.5 %" in chosen(counts=(10_000, 10_000))[1]["val_fraction"].why


def test_a_folder_with_its_own_split():
    config, choices = chosen(own_split=(150, 50), duplicates=9)
    assert config.val_fraction == CONFIG.val_fraction
    assert config.keep_together is False
    assert choices["split"].why.startswith("150 training and 50 validation images")
    assert "val_fraction" not in choices


@pytest.mark.parametrize(
    ("counts", "accelerator", "schedule", "reason"),
    [
        ((12, 12), False, feature_extraction(), "9 training images a class are too few"),
        ((30, 30), False, feature_extraction(), "only the head: 15 validation images would not show"),
        ((40, 40), False, five_steps("top(2)", epochs=14, views=4), "30 training images a class are few"),
        ((200, 200), False, five_steps("top(6)", epochs=14, views=4), "the top 6 of 18 blocks"),
        ((8000, 8000), False, five_steps("top(6)", epochs=3, views=3), "the top 6 of 18 blocks"),
        ((200, 200), True, five_steps("top(6)", epochs=14, views=4), "the top 6 of 18 blocks"),
        (
            (1000, 1000),
            True,
            layer_decay(0.85, learning_rate=3e-4, epochs=20, augment=True),
            "1,500 images on an accelerator",
        ),
        (
            (4000, 4000),
            True,
            layer_decay(0.85, learning_rate=3e-4, epochs=6, augment=True),
            "6,000 images on an accelerator",
        ),
    ],
)
def test_the_schedule_follows_the_number_of_images(counts, accelerator, schedule, reason):
    config, choices = chosen(counts=counts, accelerator=accelerator)
    assert config.schedule == schedule
    assert reason in choices["schedule"].why


def test_the_schedule_depends_on_the_split():
    config = dataclasses.replace(CONFIG, val_fraction=0.95)
    assert chosen(["val_fraction"], config, counts=(100, 100))[0].schedule == feature_extraction()
    assert chosen(own_split=(12, 188))[0].schedule == feature_extraction()


@pytest.mark.parametrize(("images", "epoch"), [(20, "best"), (19, "last")])
def test_the_best_epoch_is_kept_if_there_are_enough_validation_images(images, epoch):
    choice = chosen(own_split=(100, images))[1]["keep_epoch"]
    assert choice.value == epoch
    assert f"{images} validation images" in choice.why
    assert "keep_epoch" not in chosen(["keep_epoch"])[1]


def test_test_images_are_no_training_images():
    config = dataclasses.replace(CONFIG, test_fraction=0.3)
    assert "14 training images give" in chosen(config=config, counts=(16, 16))[1]["batch_size"].why
    assert "24 training images give" in chosen(counts=(16, 16))[1]["batch_size"].why
    split = chosen(own_split=(100, 20), own_test=30)[1]["split"].why
    assert split.startswith("100 training, 20 validation and 30 test images")


@pytest.mark.parametrize(
    ("images", "batch"), [(2000, 32), (342, 32), (338, 16), (200, 16), (100, 8), (12, 8)]
)
def test_small_sets_have_small_batches(images, batch):
    assert chosen(counts=(images // 2, images // 2))[0].batch_size == batch


def test_accumulate_keeps_the_batch_size_of_the_user():
    assert (
        "batch_size"
        not in chosen(["accumulate"], dataclasses.replace(CONFIG, accumulate=4), counts=(9, 9))[1]
    )


def test_images_that_are_enlarged():
    assert chosen(pixels=48)[1]["image_size"].why.endswith("have 48 pixels, so they are enlarged")
    assert "enlarged" not in chosen()[1]["image_size"].why


@pytest.mark.parametrize(("duplicates", "together"), [(None, False), (0, False), (2, True)])
def test_near_duplicates_are_kept_together(duplicates, together):
    config, choices = chosen(duplicates=duplicates)
    assert config.keep_together is together
    assert ("keep_together" in choices) is together


@pytest.mark.parametrize(
    ("counts", "limit", "batch", "each"),
    [((1000, 1000), 3, 8, "3 training"), ((1000, 4), 3, 8, "3 training"), ((9, 9), 99, 8, "6 training")],
)
def test_images_per_class_limits_the_training_images(counts, limit, batch, each):
    config = dataclasses.replace(CONFIG, images_per_class=limit)
    config, choices = chosen(given=("images_per_class",), config=config, counts=counts)
    assert config.batch_size == batch
    assert choices["schedule"].why.startswith(f"only the head: {each}")


@pytest.mark.parametrize(
    ("task", "counts", "split", "schedule", "epochs"),
    [
        (
            "regression",
            (9,) * 10,
            "at least 2 of each range of numbers$",
            r"67 training images are few",
            True,
        ),
        (
            "regression",
            (3,) * 4,
            "at least 1 of each range",
            "only the head: 7 training images are too few",
            False,
        ),
        (
            "multi_label",
            (12,) * 5,
            "at least 3 of each combination of labels; the 95 % interval",
            "only the head: 9 training images a combination of labels are too few",
            False,
        ),
    ],
)
def test_tasks_without_classes_have_reasons_of_their_own(task, counts, split, schedule, epochs):
    config, choices = chosen(task=task, counts=counts)
    assert re.search(split, choices["val_fraction"].why)
    assert re.search(schedule, choices["schedule"].why)
    assert (len(config.schedule.phases) > 1) == epochs
    assert "accuracy" not in choices["val_fraction"].why or task != "regression"
