import pytest

from transfer_jax.data import from_folder
from transfer_jax.data.split_folders import part_of_split

CLASSES = ("a/1.png", "b/1.png")
SPLIT = ("train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png")


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (
            "training",
            "train TRAINING train_set training-set trainset train2017 seg_train train_images trainval trainA",
        ),
        ("validation", "val Valid validation dev eval val2017 dev_set holdout held_out validation_data"),
        ("test", "test Testing test1 test_set seg_test PublicTest public_test"),
        (
            None,
            "trainer training_shoes train_station value validity device tester testament evaluate more.val",
        ),
    ],
)
def test_names_of_parts(part, names):
    assert {name: part_of_split(name) for name in names.split()} == dict.fromkeys(names.split(), part)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train/1.png", "test/1.png"],
            "without labels: there are no class folders in 'train', 'test'; expected",
        ),
        (["train/1.png", "test1/1.png", "__MACOSX/x.png"], "no class folders in 'train', 'test1'"),
        (["Train/1.png", "dev/1.png", "train.csv"], r"'Train', 'dev' \(if 'train.csv' .*csv:.*/train.csv\)"),
        (["birds_train/1.png", "birds_test/1.png"], "no class folders in 'birds_train', 'birds_test'"),
        (
            ["trainA/1.png", "trainB/1.png", "testA/1.png", "testB/1.png"],
            "'trainA', 'trainB', 'testA', 'testB'",
        ),
        (["train_set/1.png"], "no class folders in 'train_set'"),
        (["set/training/1.png", "set/validation/1.png"], "no class folders in 'training', 'validation'"),
        ([*CLASSES, "test/1.png"], "'test' beside 'a', 'b': are these parts of a split, or classes"),
        ([*CLASSES, "valid/a/1.png"], "'valid' beside 'a', 'b': are these parts of a split, or classes"),
        (["train/1.png", "unlabeled/1.png", "sample/1.png"], "'train' beside 'sample', 'unlabeled'"),
        (["train/a/1.png", "train/b/1.png", "extra/1.png"], "in 'train', and images in 'extra': .*/train"),
        (["val/a/1.png", "val/b/1.png", "test/a/1.png"], "'val', 'test', but no class folders of training"),
        (
            [*SPLIT, "Training/a/1.png"],
            "several folders of training images, keep one of them: 'Training', 'train'",
        ),
        ([*SPLIT, "dev/a/1.png"], "several folders of validation images, keep one of them: 'dev', 'val'"),
    ],
)
def test_unclear_splits_raise(tree, files, message):
    with pytest.raises(ValueError, match=message):
        from_folder(tree(*files))


@pytest.mark.parametrize(
    ("files", "names", "held_out", "notes"),
    [
        (SPLIT, SPLIT, 2, []),
        (
            [*SPLIT, "test/a/1.png"],
            [*SPLIT, "test/a/1.png"],
            2,
            ["classes without test images: 'b'"],
        ),
        (
            [*SPLIT, "test/unknown/1.png"],
            SPLIT,
            2,
            ["folders not read: 'test' (none of its folders is a class)"],
        ),
        ([*SPLIT, "test/1.png"], SPLIT, 2, ["folders not read: 'test' (no class folders with images)"]),
        (
            [*SPLIT, "sample/x.png", "annotations/x.xml"],
            SPLIT,
            2,
            ["folders not read: 'annotations', 'sample' (no part of a split)"],
        ),
        ([*SPLIT, "__MACOSX/._train"], SPLIT, 2, ["hidden or system folders left out: '__MACOSX'"]),
        (
            [*SPLIT[:2], "Test/a/1.png", "Test/b/1.png"],
            [*SPLIT[:2], "Test/a/1.png", "Test/b/1.png"],
            None,
            [],
        ),
        (
            ["train-birds/a/1.png", "train-birds/b/1.png", "dev-birds/b/1.png", "dev-birds/a/1.png"],
            ["train-birds/a/1.png", "train-birds/b/1.png", "dev-birds/a/1.png", "dev-birds/b/1.png"],
            2,
            [],
        ),
        (
            ["freight-train/1.png", "freight-car/1.png"],
            ["freight-car/1.png", "freight-train/1.png"],
            None,
            [],
        ),
        ([*SPLIT[:2], "val/a/"], SPLIT[:2], None, ["folders not read: 'val' (no class folders with images)"]),
        ([*SPLIT[:2], "labels/1.txt"], SPLIT[:2], None, ["folders not read: 'labels' (no part of a split)"]),
        (
            [*CLASSES, "train/1.png"],
            [*CLASSES, "train/1.png"],
            None,
            ["the folder 'train' is read as a class like 'a'; if it is no class, move it away"],
        ),
    ],
)
def test_splits(tree, files, names, held_out, notes):
    dataset = from_folder(tree(*files))
    assert dataset.names == [*names]
    assert held_out == (None if dataset.held_out is None else dataset.held_out.sum())
    tests = [] if dataset.test is None else [names[place] for place in dataset.test.nonzero()[0]]
    assert tests == [name for name in names if name.lower().startswith("test/")]
    assert dataset.notes == tuple(notes)
