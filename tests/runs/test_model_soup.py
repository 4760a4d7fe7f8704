import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.data import from_folder
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs import greedy_soup, soup
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.saved_model import SavedModel

TINY = "efficientnet_lite_tiny"
PREPROCESSING = Preprocessing(
    image_size=32, crop_fraction=1.0, mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0)
)


@pytest.mark.parametrize(
    ("values", "goal", "kept", "mean"),
    [
        ([0.0, 3.0, 5.0], 4.0, (1, 2), 4.0),  # 3 and 5 have the same score; their mean is better.
        ([4.0, 0.0], 4.0, (0,), 4.0),
        ([1.0, 2.0, 9.0], 2.0, (1,), 2.0),
        ([2.0, 2.0], 2.0, (0, 1), 2.0),
    ],
)
def test_a_model_is_kept_if_it_does_not_lower_the_score(values, goal, kept, mean):
    candidates = [{"w": jnp.full(3, value)} for value in values]
    arrays, found = greedy_soup(candidates, lambda arrays: -abs(float(arrays["w"][0]) - goal))
    assert found == kept
    np.testing.assert_allclose(arrays["w"], mean)


def write(folder, seed: int, classes=("blue", "green", "red")):
    _, params, stats = split(create_model(TINY, len(classes), seed=seed))
    saved = SavedModel(
        model=TINY, task=SingleLabel(classes), preprocessing=PREPROCESSING, temperature=1.5 + seed
    )
    saved.save(folder / "model", {**params, **stats})
    return folder


def test_a_soup_of_runs_is_a_model(image_folder, tmp_path):
    runs = [write(tmp_path / str(seed), seed) for seed in (1, 2)]
    images = from_folder(image_folder)
    kept = soup(runs, images, tmp_path / "soup")
    found, *alone = (
        (predict_dataset(folder, images).argmax(-1) == images.labels).mean()
        for folder in (tmp_path / "soup", *runs)
    )
    assert set(kept) <= set(runs)
    assert found >= max(alone)


def test_runs_of_different_networks_are_refused(image_folder, tmp_path):
    one, other = write(tmp_path / "1", 1), write(tmp_path / "2", 2, ("a", "b"))
    images = from_folder(image_folder)
    with pytest.raises(ValueError, match=r"2 differs from .* in network, classes or preprocessing"):
        soup([one, other], images, tmp_path / "soup")
    with pytest.raises(ValueError, match="classes that the model does not have: 'blue', 'green', 'red'"):
        soup([other], images, tmp_path / "soup")
