import dataclasses
import errno

import numpy as np
import pytest

from transfer_jax.data import BadImageError, ImageDataset, drop_images
from transfer_jax.data.class_order import with_classes
from transfer_jax.data.dataset import summarize_images
from transfer_jax.data.decode import ImageSummary


def dataset_of(contents: list) -> ImageDataset:
    n = len(contents)
    return ImageDataset(
        read=contents.__getitem__,
        labels=np.arange(n, dtype=np.int32) % 2,
        names=[f"image {i}" for i in range(n)],
        class_names=("a", "b"),
        fingerprint="f",
        strata=np.arange(n),
    )


def test_a_dataset_gets_the_classes_of_a_model():
    dataset = dataset_of([b""] * 3)
    found = with_classes(dataset, ("c", "b", "a"))
    assert found.labels.tolist() == [2, 1, 2]
    assert found.counts() == {"c": 0, "b": 1, "a": 2}
    assert with_classes(dataset, ("a", "b")) is dataset
    unused = dataclasses.replace(dataset, class_names=("a", "b", "x"))
    assert with_classes(unused, ("a", "b")).class_names == ("a", "b")
    with pytest.raises(
        ValueError, match=r"classes that the model does not have: 'b'\. The classes of the model"
    ):
        with_classes(dataset, ("a", *(f"class {i}" for i in range(3000))))


def test_all_kinds_of_images_become_rgb(cat, encode):
    gray = cat[..., 0].copy()
    dataset = dataset_of([encode(cat), cat, gray, gray[..., None]])
    for i in (0, 1):
        np.testing.assert_array_equal(dataset.image(i), cat)
    for i in (2, 3):
        np.testing.assert_array_equal(dataset.image(i), np.stack([gray] * 3, axis=-1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (np.zeros((4, 4), np.float32), "expected uint8 pixels, got float32"),
        (np.zeros(4, np.uint8), r"expected uint8 pixels, got uint8 of shape \(4,\)"),
        (np.zeros((4, 4, 4), np.uint8), r"expected 1 or 3 channels last, got shape \(4, 4, 4\)"),
        (b"no image", "not an image"),
        (np.zeros((0, 4, 3), np.uint8), r"the image has no pixels, its shape is \(0, 4, 3\)"),
        (None, "expected a file or an array of pixels, got NoneType"),
        ("a.png", "expected a file or an array of pixels, got str"),
    ],
)
def test_bad_images_raise_with_their_name(content, reason):
    with pytest.raises(BadImageError, match=f"^image 0: {reason}"):
        dataset_of([content]).image(0)


def test_unreadable_file_raises():
    def read(index: int) -> bytes:
        raise FileNotFoundError("gone")

    dataset = dataclasses.replace(dataset_of([b""]), read=read)
    with pytest.raises(BadImageError, match=r"^image 0: cannot be read \(gone\)"):
        dataset.image(0)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "I/O"), OSError(errno.ESTALE, "stale"), ConnectionResetError(), TimeoutError()],
)
def test_errors_that_pass_are_retried(cat, monkeypatch, error):
    pauses, errors = [], [error, error]
    monkeypatch.setattr("transfer_jax.data.contents.time.sleep", pauses.append)

    def read(index: int) -> np.ndarray:
        if errors:
            raise errors.pop()
        return cat

    np.testing.assert_array_equal(dataclasses.replace(dataset_of([b""]), read=read).image(0), cat)
    assert pauses == [0.1, 0.5]


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), 1),
        (PermissionError(errno.EACCES, "no"), 1),
        (TimeoutError(), 4),
    ],
)
def test_errors_that_stay_are_raised(monkeypatch, error, attempts):
    calls = []
    monkeypatch.setattr("transfer_jax.data.contents.time.sleep", lambda seconds: None)

    def read(index: int) -> bytes:
        calls.append(index)
        raise error

    with pytest.raises(BadImageError, match=r"^image 0: cannot be read"):
        dataclasses.replace(dataset_of([b""]), read=read).summary(0)
    assert len(calls) == attempts


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_files_in_other_buffers(cat, encode, kind):
    np.testing.assert_array_equal(dataset_of([kind(encode(cat))]).image(0), cat)


def test_subset_selects_all_attributes(patches):
    part = patches.subset([5, 2, 30])
    assert len(part) == 3
    assert part.names == ["image 5", "image 2", "image 30"]
    assert part.labels.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(part.image(2), patches.image(30))
    again = part.subset(np.array([2]))
    np.testing.assert_array_equal(again.image(0), patches.image(30))
    np.testing.assert_array_equal(dataset_of([b""] * 4).subset([3, 1]).strata, [3, 1])


def test_fingerprint_depends_on_the_indices(patches):
    choices = [[0, 1], [1, 0], [0, 2], [0], range(40), []]
    prints = [patches.subset(choice).fingerprint for choice in choices]
    assert len({*prints, patches.fingerprint}) == 7
    assert prints[0] == patches.subset(np.array([0, 1])).fingerprint
    other = dataclasses.replace(patches, fingerprint="other")
    assert other.subset([0, 1]).fingerprint != prints[0]


def test_counts_by_class():
    dataset = dataclasses.replace(dataset_of([b""] * 5), class_names=("a", "b", "none"))
    assert dataset.counts() == {"a": 3, "b": 2, "none": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(4, np.int64)}, "labels must be int32"),
        ({"labels": np.zeros((4, 1), np.int32)}, r"shape \(n,\)"),
        ({"labels": np.array([0, 1, 2, 0], np.int32)}, r"labels must be in 0\.\.1 .*got 0\.\.2"),
        ({"labels": np.array([0, -1, 1, 0], np.int32)}, r"got -1\.\.1"),
        ({"names": ["one"]}, "1 names for 4 labels"),
        ({"strata": np.zeros(3)}, r"strata must have shape \(4,\)"),
        ({"weights": np.ones(3)}, r"weights must be above 0 and have shape \(4,\)"),
        ({"weights": np.arange(4.0)}, "weights must be above 0"),
        ({"groups": np.array(["a"])}, r"groups must have shape \(4,\) .*got \(1,\)"),
        ({"groups": np.arange(4)}, "groups must be strings, got int64"),
    ],
)
def test_inconsistent_datasets_raise(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(dataset_of([b""] * 4), **change)


def test_summaries_report_bad_images(cat, encode):
    good = encode(cat[:20, :30])
    contents = [good] * 30
    contents[3], contents[21] = b"", good[:-30]
    dataset = dataset_of(contents)
    found = list(summarize_images(dataset, np.arange(30)))
    bad = [index for index, each in enumerate(found) if isinstance(each, BadImageError)]
    assert bad == [3, 21]
    assert str(found[3]) == "image 3: the file is empty"
    assert str(found[21]).startswith("image 21: ")
    (look,) = summarize_images(dataset, [5])
    assert isinstance(look, ImageSummary)
    assert (look.width, look.height, look.kind, look.gray) == (30, 20, "PNG", False)
    assert len(drop_images(dataset, bad)) == 28


def test_summary_of_an_array(cat):
    for content in (cat[..., 0].copy(), cat[..., :1].copy()):
        look = dataset_of([content]).summary(0)
        assert (look.width, look.height, look.kind, look.gray) == (451, 300, "", True)


def test_drop_images_keeps_the_order():
    assert drop_images(dataset_of([b""] * 5), [3, 0]).names == ["image 1", "image 2", "image 4"]
    assert len(drop_images(dataset_of([b""] * 5), [])) == 5


@pytest.mark.parametrize("function", [ImageDataset.subset, drop_images])
@pytest.mark.parametrize("index", [-1, 4])
def test_indices_out_of_range_raise(function, index):
    with pytest.raises(IndexError, match=rf"0\.\.3, got .*{index}"):
        function(dataset_of([b""] * 4), [1, index])


def test_weights_follow_images_and_have_mean_one():
    weights = np.array([0.5, 1.0, 2.0, 0.5], np.float32)
    dataset = dataclasses.replace(dataset_of([b""] * 4), weights=weights)
    assert set(dataset_of([b""] * 4).labels_and_weights(np.array([1]))) == {"label", "index"}
    np.testing.assert_array_equal(dataset.labels_and_weights(np.arange(4))["weight"], weights)
    few = dataset.subset([2, 1]).labels_and_weights(np.array([0, 1]))
    np.testing.assert_allclose(few["weight"], [2 / 1.5, 1 / 1.5])
    assert few["weight"].dtype == np.float32


def test_groups_follow_images_and_do_not_change_the_fingerprint():
    plain = dataset_of([b""] * 4)
    dataset = dataclasses.replace(plain, groups=np.array(["x", "y", "x", "z"]))
    few = dataset.subset([3, 0])
    assert few.groups is not None
    assert few.groups.tolist() == ["z", "x"]
    assert few.fingerprint == plain.subset([3, 0]).fingerprint
    assert dataset.labels_and_weights(np.arange(4)).keys() == plain.labels_and_weights(np.arange(4)).keys()
