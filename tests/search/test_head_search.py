import csv
import re

import numpy as np
import pytest

from transfer_jax.cli import main
from transfer_jax.config import TrainConfig
from transfer_jax.data import load_dataset, stratified_split
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.report.progress import Silent
from transfer_jax.runs.extract_features import extract_features
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.runs.resolve import resolve
from transfer_jax.search.head_search import search_heads
from transfer_jax.search.head_sweep import Grid
from transfer_jax.search.knn_probe import knn_probe
from transfer_jax.search.linear_probe import linear_probe
from transfer_jax.tasks import MultiLabel, SingleLabel
from transfer_jax.weights.saved_model import SavedModel

pytestmark = pytest.mark.usefixtures("toy")
GRID = Grid(learning_rates=(1e-3, 1e-2), weight_decays=(0.0,), label_smoothings=(0.0, 0.1), seeds=(0, 1))


def config(images, **changes) -> TrainConfig:
    settings = {"model": "toy", "weights": "none", **changes}
    return TrainConfig(images=str(images), **settings)


def test_the_best_head_is_a_model(image_folder, tmp_path, monkeypatch):
    choices = []

    def chosen(task, predictions, labels) -> float:
        choices.append((predictions.shape, labels))
        return 1.7

    monkeypatch.setattr("transfer_jax.search.head_search.best_temperature", chosen)
    given = config(image_folder, feature_dir=str(tmp_path / "features"))
    workdir = tmp_path / "deep" / "heads"
    found = search_heads(given, workdir, GRID, epochs=5, progress=Silent())
    with (workdir / "heads.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.sweep.candidates) == 8
    best = found.sweep.candidates[0]
    assert {name: float(value) for name, value in rows[0].items()} == pytest.approx(
        {name: getattr(best, name) for name in rows[0]}
    )
    _, held_out = stratified_split(load_dataset(given.images), 0.25, given.seed)
    probabilities = predict_dataset(workdir, held_out, progress=Silent())
    scores = SingleLabel(held_out.class_names).scores(probabilities, held_out.labels)
    assert scores["accuracy"] == found.metrics["accuracy"]
    assert found.temperature == SavedModel.describe(workdir).temperature == 1.7
    ((shape, labels),) = choices
    assert shape == (found.selecting_images, 3)
    train, _ = stratified_split(load_dataset(given.images), 0.25, given.seed)
    _, selecting = stratified_split(train, 0.25, given.seed)
    np.testing.assert_array_equal(labels, selecting.labels)
    dataset = load_dataset(given.images)
    preprocessing = SavedModel.describe(workdir).preprocessing
    features = extract_features(create_model("toy", 3), dataset, preprocessing=preprocessing)
    known = knn_probe(features, dataset, np.asarray(held_out.rows))
    assert found.neighbours is not None
    assert found.neighbours.score == next(iter(known.values.values()))
    fitted = linear_probe(features, dataset, np.asarray(held_out.rows), seed=given.seed)
    assert found.linear is not None
    assert found.linear.score == next(iter(fitted.values.values()))
    assert scores["log_loss"] == pytest.approx(found.metrics["log_loss"], rel=1e-4)


def test_the_folder_of_a_run_is_an_error(image_folder, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is the folder of a training run; choose another with --workdir"):
        search_heads(config(image_folder), tmp_path, GRID, progress=Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("limit", "fraction", "message"),
    [
        (1, 0.25, "each class has a single training image, so none is left to select the best candidate"),
        (2, 0.25, r"validation_fraction 0\.25 leaves .* set validation_fraction \(--validation\) to 0\.5,"),
    ],
)
def test_too_few_images_are_found_before_features_are_extracted(
    image_folder, tmp_path, limit, fraction, message
):
    given = config(image_folder, images_per_class=limit)
    with pytest.raises(ValueError, match=message):
        search_heads(given, tmp_path, GRID, validation_fraction=fraction, progress=Silent())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("changes", "train", "trained"),
    [
        ({}, "from_('blocks.11')", {"blocks.11", "top", "head"}),
        ({}, "blocks('blocks.11')", {"blocks.11"}),
        ({"hidden": (8,)}, "head", {"head"}),
    ],
)
def test_the_best_suffix_is_a_model(image_folder, tmp_path, changes, train, trained):
    given = config(image_folder, **changes)
    found = search_heads(given, tmp_path, GRID, train=train, epochs=2, progress=Silent())
    assert found.linear is found.neighbours is None
    best = found.sweep.candidates[0]
    assert set(map(block_of, best.arrays)) == trained
    saved, model = SavedModel.load(tmp_path)
    assert saved.hidden == given.hidden
    _, params, _ = split(model)
    for path, array in best.arrays.items():
        np.testing.assert_array_equal(params[path], array)
    _, held_out = stratified_split(load_dataset(given.images), 0.25, given.seed)
    probabilities = predict_dataset(tmp_path, held_out, progress=Silent())
    scores = SingleLabel(held_out.class_names).scores(probabilities, held_out.labels)
    assert scores["log_loss"] == pytest.approx(found.metrics["log_loss"], rel=1e-4)


def test_the_lowest_block_cannot_train(image_folder, tmp_path):
    with pytest.raises(ValueError, match="requires a cache, but its lowest block trains"):
        search_heads(config(image_folder), tmp_path, GRID, train="all_()", progress=Silent())
    assert not tmp_path.joinpath("heads.csv").exists()


@pytest.fixture(scope="module")
def table(image_folder, tmp_path_factory):
    """The images with several labels, a number and levels."""
    rows = []
    for index, path in enumerate(sorted(image_folder.rglob("*.png"))):
        name = path.parent.name
        labels = {"red": "warm", "green": "cold dark", "blue": "cold"}[name]
        size = {"red": 1.5, "green": 10.0, "blue": 20.0}[name] + index % 3
        rows.append([path, labels, size, {"red": 0, "green": 1, "blue": 2}[name]])
    file = tmp_path_factory.mktemp("table") / "images.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("image", "labels", "size", "level"), *rows])
    return file


@pytest.mark.parametrize(
    ("column", "task", "better"),
    [
        ("labels", "multi_label", "mean_average_precision"),
        pytest.param("size", "regression", "mae", marks=pytest.mark.extended),
        pytest.param("level", "ordinal", "accuracy", marks=pytest.mark.extended),
    ],
)
def test_heads_of_all_tasks(table, tmp_path, column, task, better):
    given = config(f"csv:{table}?label={column}", task=task, feature_dir=str(tmp_path / "features"))
    smoothings = (0.0,) if task == "regression" else (0.0, 0.1)
    grid = Grid(learning_rates=(1e-2,), weight_decays=(0.0,), label_smoothings=smoothings, seeds=(0,))
    found = search_heads(given, tmp_path / "heads", grid, epochs=3, progress=Silent())
    saved = SavedModel.describe(tmp_path / "heads")
    assert saved.task.kind == task
    assert saved.temperature == found.temperature
    assert found.linear is not None
    assert found.neighbours is not None
    for score in (found.linear, found.neighbours):
        assert np.isfinite(score.score)
    if task == "multi_label":
        assert isinstance(saved.task, MultiLabel)
        assert len(saved.task.thresholds) == 3
    validation = resolve(given, progress=Silent()).evaluation
    predictions = predict_dataset(tmp_path / "heads", validation, progress=Silent())
    scores = saved.task.scores(predictions, validation.labels)
    assert scores[better] == pytest.approx(found.metrics[better], rel=1e-4)


def test_the_command(image_folder, tmp_path, capsys):
    arguments = [
        "heads",
        "--images",
        str(image_folder),
        "--model",
        "toy",
        "--weights",
        "none",
    ]
    grid = ["--grid.learning-rates", "0.01", "--grid.seeds", "0", "--epochs", "2"]
    assert main([*arguments, *grid, "--workdir", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert re.search(
        r"of 8, trained on \d+ training images and scored on \d+ others, which select the best; ", output
    )
    assert re.search(r"The best on \d+ validation images \(none trained on; they selected nothing\)", output)
    assert re.search(
        r"Linear model by cross-validation \(L2 = .*\), all training images, on the \d+ ", output
    )
    assert re.search(r"Nearest neighbours \(k = \d+\), all training images, on the \d+ ", output)
    assert main(["predict", str(tmp_path), str(image_folder / "red"), "--out", str(tmp_path / "p.csv")]) == 0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 17
