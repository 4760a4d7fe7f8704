import numpy as np
import pytest
from PIL import Image

from transfer_jax.data import from_arrays


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_images_are_read_as_rgb(cat, shape):
    images = np.stack([cat[:9, :7], cat[9:18, :7]])
    images = images[..., 0] if shape == () else images[..., : shape[0]]
    dataset = from_arrays(images, [0, 1])
    for i in range(2):
        expected = images[i] if shape == (3,) else np.stack([images[i].reshape(9, 7)] * 3, axis=-1)
        np.testing.assert_array_equal(dataset.image(i), expected)


@pytest.mark.parametrize(
    ("labels", "class_names", "expected_names", "expected_labels"),
    [
        ([10, 9, 10], None, ("9", "10"), [1, 0, 1]),
        (["dog", "cat", "dog"], None, ("cat", "dog"), [1, 0, 1]),
        (["dog", "cat", "dog"], ("dog", "cat"), ("dog", "cat"), [0, 1, 0]),
        (np.array([2, 0, 2], np.uint8), ["a", "b", "c"], ("a", "b", "c"), [2, 0, 2]),
    ],
)
def test_labels_and_class_names(labels, class_names, expected_names, expected_labels):
    dataset = from_arrays(np.zeros((3, 2, 2), np.uint8), labels, class_names)
    assert dataset.class_names == expected_names
    assert dataset.labels.tolist() == expected_labels
    assert dataset.labels.dtype == np.int32


def test_fingerprint_depends_on_pixels_labels_and_classes(cat):
    images = np.stack([cat[:4, :6], cat[4:8, :6]])
    changed = images.copy()
    changed[1, 3, 5, 2] ^= 1
    variants = [
        from_arrays(images, [0, 1], ("a", "b")),
        from_arrays(changed, [0, 1], ("a", "b")),
        from_arrays(images, [1, 0], ("a", "b")),
        from_arrays(images, [0, 1], ("a", "c")),
        from_arrays(images.reshape(2, 6, 4, 3), [0, 1], ("a", "b")),
    ]
    assert len({dataset.fingerprint for dataset in variants}) == 5
    assert from_arrays(images.copy(), [0, 1], ("a", "b")).fingerprint == variants[0].fingerprint


def test_images_of_several_sizes_and_of_pillow(cat):
    arrays = [cat[:9, :7], cat[:5, :7, 0]]
    pillow = [Image.fromarray(arrays[0]), Image.fromarray(arrays[1]).convert("LA")]
    for images in (arrays, pillow):
        dataset = from_arrays(images, ["b", "a"])
        np.testing.assert_array_equal(dataset.image(0), arrays[0])
        np.testing.assert_array_equal(dataset.image(1), np.stack([arrays[1]] * 3, axis=-1))


def test_arrays_in_any_memory_are_the_same_images(cat, tmp_path):
    images = np.stack([cat[:4, :6], cat[4:8, :6]])
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    turned = np.ascontiguousarray(images[::-1])[::-1]
    fingerprint = from_arrays(images, [0, 1]).fingerprint
    for same in (mapped, turned, list(images), [Image.fromarray(image) for image in images]):
        dataset = from_arrays(same, [0, 1])
        assert dataset.fingerprint == fingerprint
        np.testing.assert_array_equal(dataset.image(1), images[1])


ZEROS = np.zeros((2, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "class_names", "message"),
    [
        (
            np.ones((2, 4, 4), np.float32),
            [0, 1],
            None,
            r"float32 in 1\.\.1; convert them with \(images \* 255\)",
        ),
        (np.full((2, 4, 4), 99.0), [0, 1], None, r"in 99\.\.99; if black is 0 .* images.round\(\).astype"),
        (np.full((2, 4, 4), -1.0), [0, 1], None, r"\(\(images \+ 1\) \* 127.5\)"),
        (np.full((2, 4, 4), np.nan), [0, 1], None, "no finite numbers"),
        (np.full((2, 4, 4), 7), [0, 1], None, r"got int64 in 7\.\.7; .* images.astype\(np.uint8\)"),
        (ZEROS > 0, [0, 1], None, r"got bool; .* \* 255"),
        (["a.png", "b.png"], [0, 1], None, "must be pixels, got 'a.png'; from_csv"),
        (np.zeros((4, 4), np.uint8), [0] * 4, None, r"got \(4, 4\); one image needs images\[None\]"),
        (
            np.zeros((4, 5, 3), np.uint8),
            [0],
            ("a", "b"),
            r"1 labels for 4 images; pass one image as images\[None",
        ),
        (
            np.zeros((2, 3, 4, 5), np.uint8),
            [0, 1],
            None,
            r"got \(2, 3, 4, 5\); .*images.transpose\(0, 2, 3, 1\)",
        ),
        (np.zeros((2, 4, 4, 4), np.uint8), [0, 1], None, r"images\[\.\.\., :3\]"),
        (np.zeros((0, 4, 4), np.uint8), [], ("a", "b"), r"got \(0, 4, 4\); there are no pixels"),
        ([], [], ("a", "b"), "must not be empty"),
        (ZEROS, [0, 1, 1], None, "got 3 labels for 2 images"),
        (ZEROS, [5, 5], None, r"at least two classes are needed, got \['5'\]"),
    ],
)
def test_invalid_arrays_raise(images, labels, class_names, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(images, labels, class_names)
