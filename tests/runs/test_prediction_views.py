import numpy as np
import pytest

from transfer_jax.runs.prediction_views import views_of

IMAGES = np.arange(2 * 3 * 3 * 3).reshape(2, 3, 3, 3)


@pytest.mark.parametrize(("views", "count"), [("none", 1), ("flip", 2), ("dihedral", 8)])
def test_all_views_are_different_and_the_image_is_first(views, count):
    found = list(views_of({"image": IMAGES, "mask": np.ones(2, bool)}, views))
    assert len(found) == count
    np.testing.assert_array_equal(found[0]["image"], IMAGES)
    assert len({batch["image"].tobytes() for batch in found}) == count
    assert all(batch["mask"].all() and batch["image"].shape == IMAGES.shape for batch in found)


def test_a_flip_is_left_to_right():
    _, mirrored = views_of({"image": IMAGES}, "flip")
    np.testing.assert_array_equal(mirrored["image"][:, :, 0], IMAGES[:, :, 2])


@pytest.mark.parametrize(
    ("batch", "views", "message"),
    [
        ({"image": IMAGES}, "crops", "must be one of none, flip, dihedral, got 'crops'"),
        ({"text": IMAGES}, "flip", "needs images; the inputs are text"),
    ],
)
def test_invalid_views(batch, views, message):
    with pytest.raises(ValueError, match=message):
        list(views_of(batch, views))
