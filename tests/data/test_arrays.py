import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("images", "labels", "class_names", "message"),
    [
        (np.zeros((2, 4, 4), np.float32), [0, 1], None, "must be uint8 in 0..255, got float32"),
        (np.zeros((4, 4), np.uint8), [0] * 4, None, r"got \(4, 4\)"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 1], None, r"got \(2, 3, 4, 4\)"),
        (np.zeros((2, 4, 4), np.uint8), [0, 1, 1], None, r"shape \(2,\) like the images, got \(3,\)"),
        (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0], None, "integers or strings, got float64"),
        (np.zeros((2, 4, 4), np.uint8), [0, 2], ("a", "b"), r"0\.\.1 for the classes .*, got 0\.\.2"),
        (np.zeros((2, 4, 4), np.uint8), [-1, 0], ("a", "b"), r"got -1\.\.0"),
        (np.zeros((2, 4, 4), np.uint8), ["a", "x"], ("a", "b"), r"\['x'\] are not among"),
        (np.zeros((2, 4, 4), np.uint8), [5, 5], None, r"at least two classes are needed, got \['5'\]"),
    ],
)
def test_invalid_arrays_raise(images, labels, class_names, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(images, labels, class_names)
