from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.data import BadImageError, eval_transform, from_folder
from transfer_jax.distributed import processes
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.report.progress import Silent
from transfer_jax.runs import classify
from transfer_jax.runs import predict as predict_module
from transfer_jax.runs.predict import most_probable, predict_batches, predict_dataset, unlabelled
from transfer_jax.tasks import SingleLabel
from transfer_jax.tasks.top_predictions import TopPredictions, join_predictions
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
    SavedModel(model=TINY, task=SingleLabel(CLASSES), preprocessing=PREPROCESSING).save(
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


def test_predictions_of_views_are_averaged(model, image_folder, tmp_path):
    dataset = from_folder(image_folder)
    images = np.stack([eval_transform(dataset.image(index), PREPROCESSING) for index in range(len(dataset))])
    run = jax.jit(lambda x: model(PREPROCESSING.normalize(x)))
    logits = np.stack([run(images), run(images[:, :, ::-1])])
    sharper = 3 / np.abs(logits).max()
    _, params, stats = split(model)
    kernel = {"head/classifier/kernel": sharper * params["head/classifier/kernel"]}
    SavedModel(model=TINY, task=SingleLabel(CLASSES), preprocessing=PREPROCESSING).save(
        tmp_path / "model", {**params, **kernel, **stats}
    )
    probabilities = np.asarray(jax.nn.softmax(sharper * logits))
    assert np.abs(probabilities[0] - probabilities[1]).max() > 0.01
    found = predict_dataset(tmp_path, dataset, views="flip")
    np.testing.assert_allclose(found, probabilities.mean(0), atol=1e-3)


def test_classify_names_the_class_and_its_probability(saved, image_folder):
    files = sorted((image_folder / "red").iterdir())[::-1]
    found = classify(saved, files)
    probabilities = predict_dataset(saved, unlabelled(files, SingleLabel(CLASSES)))
    assert [name for name, _, _ in found] == list(map(str, files))
    assert [choice for _, choice, _ in found] == [CLASSES[index] for index in probabilities.argmax(-1)]
    assert [share for *_, share in found] == pytest.approx(probabilities.max(-1).tolist())


@pytest.mark.parametrize("kind", [str, Path])
def test_classify_takes_one_path_and_logs_what_is_left_out(saved, image_folder, tmp_path, kind):
    lines = []

    class Log(Silent):
        def log(self, message):
            lines.append(message)

    content = (image_folder / "red" / "00.png").read_bytes()
    for name in ("b.png", "a"):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.txt").touch()
    found = classify(saved, kind(tmp_path), progress=Log())
    assert [name for name, *_ in found] == [str(tmp_path / name) for name in ("a", "b.png")]
    assert lines == ["files left out: 1 .txt"]
    assert [name for name, *_ in classify(saved, kind(tmp_path / "a"))] == [str(tmp_path / "a")]


@pytest.fixture
def spoilt(tmp_path, image_folder):
    """Seven image files, of which the second and the last are bad."""
    files = []
    for index, file in enumerate(sorted((image_folder / "red").iterdir())[:7]):
        files.append(tmp_path / file.name)
        files[-1].write_bytes({1: b"", 6: b"no image"}.get(index, file.read_bytes()))
    return files


def test_bad_images_do_not_affect_the_others(saved, spoilt):
    good = [file for index, file in enumerate(spoilt) if index not in (1, 6)]
    expected = predict_dataset(saved, unlabelled(good, SingleLabel(CLASSES)))
    bad: dict[int, BadImageError] = {}
    found = predict_dataset(saved, unlabelled(spoilt, SingleLabel(CLASSES)), batch_size=3, bad=bad)
    assert sorted(bad) == [1, 6]
    assert np.isnan(found[[1, 6]]).all()
    np.testing.assert_allclose(np.delete(found, [1, 6], axis=0), expected, rtol=1e-5)
    with pytest.raises(BadImageError, match=r": the file is empty; --on-bad-image skip"):
        predict_dataset(saved, unlabelled(spoilt, SingleLabel(CLASSES)))


@pytest.mark.parametrize(
    ("cores", "given", "threads"), [(1, None, 2), (4, None, 4), (112, None, 6), (112, 1, 1)]
)
def test_threads_are_chosen_from_the_cores(saved, image_folder, monkeypatch, cores, given, threads):
    found: list[int] = []

    def batches(*arguments, threads: int, **options):
        found.append(threads)
        return iter(())

    monkeypatch.setattr(processes, "cores", lambda: cores)
    monkeypatch.setattr(predict_module, "ordered_batches", batches)
    dataset = unlabelled([*(image_folder / "red").iterdir()], SingleLabel(CLASSES))
    assert [*predict_batches(saved, dataset, threads=given)] == []
    assert found == [threads]


def test_batches_before_a_failure_are_yielded(saved, spoilt):
    batches = predict_batches(saved, unlabelled(spoilt[2:], SingleLabel(CLASSES)), batch_size=2, threads=0)
    assert [next(batches).shape, next(batches).shape] == [(2, 3), (2, 3)]
    with pytest.raises(BadImageError, match="not an image"):
        next(batches)


def test_classify_warns_of_bad_images(saved, spoilt):
    with pytest.warns(UserWarning, match=r"^Bad images: 2 of 7, left without a class: .*is empty; "):
        found = classify(saved, spoilt)
    assert [name for name, _, _ in found] == list(map(str, spoilt))
    assert [index for index, (_, choice, _) in enumerate(found) if not choice] == [1, 6]
    assert [index for index, (*_, share) in enumerate(found) if np.isnan(share)] == [1, 6]


def test_classify_may_stop_at_bad_images(saved, spoilt):
    with pytest.raises(BadImageError, match="the file is empty"):
        classify(saved, spoilt, on_bad_image="error")
    with pytest.raises(BadImageError, match=r"no image can be read \(1 of 1 are bad\), such as .*is empty"):
        classify(saved, spoilt[1])
    with pytest.raises(ValueError, match=r"on_bad_image must be one of \('error', 'skip'\), got 'warn'"):
        classify(saved, spoilt, on_bad_image="warn")  # pyright: ignore[reportArgumentType]


def test_many_predictions_are_kept_as_the_most_probable_classes(image_folder, monkeypatch):
    dataset, rng = from_folder(image_folder), np.random.default_rng(0)
    batches = [rng.dirichlet(np.ones(3), size) for size in (20, 28)]
    found = join_predictions([*most_probable(batches, dataset.task, dataset, labelled=True)])
    np.testing.assert_array_equal(found, np.concatenate(batches))
    monkeypatch.setattr("transfer_jax.runs.predict.keeps_all", lambda examples, classes: False)
    found = join_predictions([*most_probable(batches, dataset.task, dataset, labelled=True)])
    assert isinstance(found, TopPredictions)
    known = TopPredictions.of(np.concatenate(batches), dataset.labels)
    np.testing.assert_array_equal(found.classes, known.classes)
    np.testing.assert_array_equal(found.log_truth, known.log_truth)
    (unknown, *_) = most_probable(batches, dataset.task, dataset, labelled=False)
    assert isinstance(unknown, TopPredictions)
    assert np.isnan(unknown.log_truth).all()
