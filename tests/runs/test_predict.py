import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.data import eval_transform, from_folder
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs import classify
from transfer_jax.runs.predict import predict_dataset, unlabelled
from transfer_jax.weights.saved_model import SavedModel

TINY = "efficientnet_lite_tiny"
CLASSES = ("ant", "bee", "fly")
PREPROCESSING = Preprocessing(
    image_size=32, crop_fraction=1.0, mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0)
)


@pytest.fixture(scope="module")
def model():
    model = create_model(TINY, 3, seed=1)
    model.eval()
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("run")
    _, params, stats = split(model)
    SavedModel(model=TINY, class_names=CLASSES, preprocessing=PREPROCESSING).save(
        folder / "model", {**params, **stats}
    )
    return folder


@pytest.mark.parametrize("batch_size", [5, 64])
def test_probabilities_are_those_of_the_model(saved, model, image_folder, batch_size):
    dataset = from_folder(image_folder)
    found = predict_dataset(saved, dataset, batch_size=batch_size)
    images = np.stack([eval_transform(dataset.image(index), PREPROCESSING) for index in range(len(dataset))])
    logits = np.asarray(jax.jit(lambda x: model(PREPROCESSING.normalize(x)))(jnp.asarray(images)))
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_classify_names_the_class_and_its_probability(saved, image_folder):
    files = sorted((image_folder / "red").iterdir())[::-1]
    found = classify(saved, files)
    probabilities = predict_dataset(saved, unlabelled(files, CLASSES))
    assert [name for name, _, _ in found] == list(map(str, files))
    assert [choice for _, choice, _ in found] == [CLASSES[index] for index in probabilities.argmax(-1)]
    assert [share for *_, share in found] == pytest.approx(probabilities.max(-1).tolist())
