import dataclasses
from typing import cast

import numpy as np
import pytest

from transfer_jax.data import ImageDataset, from_elpv, has_own_split, limit_per_class, stratified_split
from transfer_jax.data.split import unevaluated_classes, unevaluated_text


def dataset_of(labels: list[int], strata: list[int] | None = None, classes: int = 2) -> ImageDataset:
    return ImageDataset(
        read=lambda i: bytes([i]),
        labels=np.array(labels, np.int32),
        names=[str(i) for i in range(len(labels))],
        class_names=tuple(f"class {i}" for i in range(classes)),
        fingerprint="f",
        strata=None if strata is None else np.array(strata),
    )


def together(labels: list[int], groups: list[int]) -> ImageDataset:
    dataset = dataset_of(labels, classes=max(labels) + 1)
    return dataclasses.replace(dataset, together=np.array(groups))


def test_elpv_is_split_by_probability_and_type(elpv_data_dir):
    dataset = from_elpv(data_dir=elpv_data_dir)
    train, evaluation = stratified_split(dataset, 0.25, seed=0)
    assert (len(train), len(evaluation)) == (1968, 656)
    for part, share in ((train, 0.75), (evaluation, 0.25)):
        assert dataset.strata is not None
        assert part.strata is not None
        np.testing.assert_allclose(np.bincount(part.strata), share * np.bincount(dataset.strata), atol=1)
    assert sorted([*train.names, *evaluation.names]) == sorted(dataset.names)
    for part in (train, evaluation):
        assert list(part.names) == sorted(part.names)


def test_split_depends_on_the_seed(patches):
    one, two, three = (stratified_split(patches, 0.3, seed=seed) for seed in (1, 1, 2))
    for a, b in zip(one, two, strict=True):
        assert (a.names, a.fingerprint) == (b.names, b.fingerprint)
    assert one[1].names != three[1].names
    assert one[0].fingerprint != one[1].fingerprint


def test_images_follow_their_names():
    train, evaluation = stratified_split(dataset_of([0, 1] * 10), 0.3, seed=0)
    for part in (train, evaluation):
        assert [cast(bytes, part.read(i))[0] for i in range(len(part))] == [int(name) for name in part.names]


def test_indivisible_strata_are_replaced_by_classes():
    lonely = dataset_of([0, 1] * 10, strata=[7, *[0, 1] * 9, 0])
    many = dataset_of([0, 1] * 10, strata=list(range(10)) * 2)  # ten groups, five images to evaluate
    for dataset in (lonely, many):
        _, evaluation = stratified_split(dataset, 0.2, seed=0)
        assert evaluation.counts() == {"class 0": 2, "class 1": 2}
        expected = stratified_split(dataclasses.replace(dataset, strata=None), 0.2, seed=0)[1]
        assert evaluation.names == expected.names


def test_images_of_a_group_stay_together():
    groups = np.repeat(np.arange(30), 3)
    dataset = dataclasses.replace(dataset_of([0, 1] * 45), together=groups, strata=np.arange(90) % 5)
    parts = [{int(name) // 3 for name in part.names} for part in stratified_split(dataset, 0.2, seed=0)]
    assert [len(part) for part in parts] == [24, 6]
    assert not parts[0] & parts[1]
    train, _ = stratified_split(dataset, 0.2, seed=0)
    halves = [{int(name) // 3 for name in part.names} for part in stratified_split(train, 0.5, seed=1)]
    assert [len(half) for half in halves] == [12, 12]
    assert not halves[0] & halves[1]


def test_groups_of_one_image_do_not_change_the_split():
    dataset = dataset_of([0, 1, 1] * 20)
    alone = dataclasses.replace(dataset, together=np.arange(60)[::-1])
    for one, two in zip(stratified_split(dataset, 0.2, 3), stratified_split(alone, 0.2, 3), strict=True):
        assert sorted(one.counts().values()) == sorted(two.counts().values())


@pytest.mark.parametrize(
    ("dataset", "training", "validation"),
    [
        (dataset_of([0] * 8 + [1] * 8 + [2], classes=3), [6, 6, 1], [2, 2, 0]),
        (together([0] * 8 + [1] * 8 + [2] * 8, [*range(16), *[16] * 8]), [6, 6, 8], [2, 2, 0]),
        (together([0] * 8 + [1] * 8, [*range(8), *[9] * 8]), [6, 8], [2, 0]),
        (together([0, 1, 0, 1], [5, 5, 6, 6]), [1, 1], [1, 1]),
    ],
)
def test_classes_that_cannot_be_divided_stay_in_training(dataset, training, validation):
    for seed in range(5):
        parts = stratified_split(dataset, 0.25, seed)
        assert [[*part.counts().values()] for part in parts] == [training, validation]


def test_a_group_with_most_images_of_a_class_stays_in_training():
    dataset = together([0] * 20 + [1] * 20, [*[7] * 19, 8, *range(10, 30)])
    for seed in range(10):
        train, validation = stratified_split(dataset, 0.25, seed)
        assert train.counts()["class 0"] == 19
        assert validation.counts()["class 0"] == 1


def test_a_group_of_several_classes_does_not_hold_out_all_images_of_one():
    dataset = together([0] * 8 + [1], [*range(8), 3])  # The image of class 1 is like one of class 0.
    for seed in range(20):
        train, validation = stratified_split(dataset, 0.25, seed)
        assert train.counts()["class 1"] == 1
        assert len(validation) in (1, 2)


@pytest.mark.parametrize(
    ("fraction", "training", "validation"), [(0.1, [89, 1], [9, 1]), (0.9, [9, 1], [89, 1])]
)
def test_rare_classes_are_on_both_sides(fraction, training, validation):
    parts = stratified_split(dataset_of([0] * 98 + [1] * 2), fraction, seed=0)
    assert [[*part.counts().values()] for part in parts] == [training, validation]


@pytest.mark.parametrize("classes", [2, 1000])
@pytest.mark.parametrize("each", [2, 3, 5])
def test_fractions_of_messages_work(classes, each):
    dataset = dataset_of([*range(classes)] * each + [0], classes=classes)
    for impossible in (0.5 / each / classes, 1 - 0.5 / each / classes):
        with pytest.raises(ValueError, match=r"\(--val-fraction\) to") as error:
            stratified_split(dataset, impossible, seed=0)
        assert len(str(error.value)) < 250
        fraction = float(str(error.value).split("(--val-fraction) to ")[1].split(",")[0])
        for part in stratified_split(dataset, fraction, seed=0):
            assert min(part.counts().values()) >= 1


def test_messages_name_the_setting_of_the_fraction():
    with pytest.raises(ValueError, match=r"^share 0.25 leaves 1 .* set share \(--share\) to 0.5,"):
        stratified_split(dataset_of([0, 0, 1, 1]), 0.25, 0, "share (--share)")


def test_unevaluated_classes_are_those_without_validation_images():
    dataset = dataset_of([0, 0, 2, 3, 0, 1, 3], classes=4)
    assert unevaluated_classes(dataset.subset([0, 1, 2, 3]), dataset.subset([4, 5, 6])) == ("class 2",)
    assert unevaluated_text(("c",)) == "1 class without validation images ('c')"
    assert len(unevaluated_text([f"class {i}" for i in range(3000)])) < 150


def test_split_of_the_source_is_kept():
    held_out = np.arange(20) % 5 == 2
    dataset = dataclasses.replace(dataset_of([0, 1] * 10), held_out=held_out)
    assert has_own_split(dataset)
    train, evaluation = stratified_split(dataset, 0.9, seed=4)
    assert evaluation.names == ["2", "7", "12", "17"]
    assert len(train) == 16
    assert not has_own_split(train)
    assert not has_own_split(evaluation)
    assert [len(part) for part in stratified_split(train, 0.25, seed=0)] == [12, 4]


def test_classes_without_training_images_in_the_split_of_the_source_raise():
    dataset = dataclasses.replace(dataset_of([0, 1] * 5), held_out=np.array([False, True] * 5))
    with pytest.raises(ValueError, match="classes have validation images but no training images: 'class 1'"):
        stratified_split(dataset, 0.25, seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 25])
def test_fractions_out_of_range_raise(patches, fraction):
    with pytest.raises(ValueError, match=f"val_fraction must be between 0 and 1, got {fraction}"):
        stratified_split(patches, fraction, seed=0)


@pytest.mark.parametrize(
    ("dataset", "fraction", "message"),
    [
        (dataset_of([0] * 10), 0.5, r"at least two classes, got 'class 0' \(10 images\)"),
        (dataset_of([]), 0.5, "at least two classes"),
        (dataset_of([0, 1, 2], classes=3), 0.5, "each class has a single image, so none is left"),
        (dataset_of([0, 0, 1, 1]), 0.25, r"leaves 1 validation image for 2 .* \(--val-fraction\) to 0.5,"),
        (dataset_of([0, 1, 2] * 4, classes=3), 0.1, "leaves 2 validation images for 3 classes; .* to 0.25,"),
        (dataset_of([0, 1, 2] * 4, classes=3), 0.8, "leaves 2 training images for 3 classes; .* to 0.25,"),
        (together([0, 0, 1, 1], [0, 0, 1, 1]), 0.5, "single group of near duplicates.*--no-keep-together"),
        (together([0, 1, 0, 2], [5, 5, 6, 6]), 0.5, "connect the images of all classes.*--no-keep-together"),
    ],
)
def test_impossible_splits_raise(dataset, fraction, message):
    with pytest.raises(ValueError, match=message):
        stratified_split(dataset, fraction, seed=0)


def test_parts_have_a_parent(patches):
    for part in stratified_split(patches, 0.25, seed=0):
        assert part.parent is patches
        assert part.rows is not None
        assert [patches.names[row] for row in part.rows] == list(part.names)
        again = part.part([2, 0])
        assert again.parent is patches
        np.testing.assert_array_equal(again.rows, part.rows[[2, 0]])


def test_smaller_subsets_are_contained_in_larger_ones():
    dataset = dataset_of([0] * 20 + [1] * 5 + [2] * 12, classes=3)
    sizes = {count: limit_per_class(dataset, count, seed=4) for count in (1, 3, 8, 100)}
    assert [part.counts() for part in sizes.values()] == [
        {"class 0": 1, "class 1": 1, "class 2": 1},
        {"class 0": 3, "class 1": 3, "class 2": 3},
        {"class 0": 8, "class 1": 5, "class 2": 8},
        {"class 0": 20, "class 1": 5, "class 2": 12},
    ]
    names = [{*part.names} for part in sizes.values()]
    assert names[0] < names[1] < names[2] < names[3] == {*dataset.names}
    rows = sizes[8].rows
    assert rows is not None
    assert rows.tolist() == sorted(rows.tolist())
    assert limit_per_class(dataset, 3, seed=4).fingerprint == sizes[3].fingerprint
    assert {*limit_per_class(dataset, 3, seed=5).names} != names[1]
