import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from transfer_jax.config import TrainConfig
from transfer_jax.data import BadImageError
from transfer_jax.features import FeatureCacheDir
from transfer_jax.freezing import Phase, Schedule, feature_extraction
from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.report.progress import Silent
from transfer_jax.training.run import check, images_digest, images_of, override, prepare, split_images
from transfer_jax.weights.key_mapping import to_library

TINY = "efficientnet_lite_tiny"
PHASE = Phase(name="only", train="head", epochs=1, learning_rate=0.01)


def config(folder, **changes) -> TrainConfig:
    return TrainConfig(**{"images": str(folder), "model": TINY, "weights": "none", **changes})


def test_a_run_has_all_that_training_needs(image_folder, tmp_path):
    run = prepare(config(image_folder, hidden=(5,), seed=3), tmp_path, Silent())
    assert (len(run.train), len(run.evaluation)) == (36, 12)
    assert run.train.class_names == ("blue", "green", "red")
    assert run.evaluation.counts() == {"blue": 4, "green": 4, "red": 4}
    assert run.preprocessing.image_size == 32
    assert run.arrays["head/hidden/0/kernel"].shape == (1280, 5)
    assert run.arrays["head/classifier/kernel"].shape == (5, 3)
    assert set(run.params) < set(run.arrays)
    assert all(isinstance(array, jax.Array) for array in run.arrays.values())
    assert not [*tmp_path.iterdir()]


def test_images_may_be_given(toy_images, tmp_path):
    run = prepare(config("mine"), tmp_path, Silent(), toy_images)
    assert run.train.class_names == toy_images.class_names
    assert sorted([*run.train.names, *run.evaluation.names]) == sorted(toy_images.names)
    with pytest.raises(ValueError, match="mine"):
        prepare(config("mine"), tmp_path, Silent())


def test_weights_of_a_file_fill_the_backbone_and_not_the_head(image_folder, tmp_path):
    _, params, stats = split(create_model(TINY, 9, seed=8))
    arrays = {**params, **stats}
    torch = to_library(TINY, arrays)
    save_file(torch, tmp_path / "weights.safetensors")
    run = prepare(config(image_folder, weights=str(tmp_path / "weights.safetensors")), tmp_path, Silent())
    for path, array in arrays.items():
        if not path.startswith("head/"):
            np.testing.assert_array_equal(run.arrays[path], array, err_msg=path)
    assert run.arrays["head/classifier/bias"].shape == (3,)


def test_the_seed_decides_split_and_head(image_folder, tmp_path):
    first, again, other = (prepare(config(image_folder, seed=s), tmp_path, Silent()) for s in (0, 0, 1))
    assert first.train.names == again.train.names != other.train.names
    path = "head/classifier/kernel"
    np.testing.assert_array_equal(first.arrays[path], again.arrays[path])
    assert not np.array_equal(first.arrays[path], other.arrays[path])
    assert images_digest(first) == images_digest(again) != images_digest(other)


def test_overrides_of_the_preprocessing(make_run):
    preprocessing = make_run(PHASE).preprocessing
    assert override(preprocessing, None, None) == preprocessing
    assert override(preprocessing, 48, 0.5) == dataclasses.replace(
        preprocessing, image_size=48, crop_fraction=0.5
    )


@pytest.mark.parametrize(
    ("settings", "size"),
    [({"batch_size": 32}, 32), ({"batch_size": 64}, 36), ({"batch_size": 64, "accumulate": 8}, 32)],
)
def test_a_batch_is_never_larger_than_the_dataset(make_run, settings, size):
    run = make_run(PHASE, **settings)
    assert run.batch_size == size
    assert run.batch_size % run.config.accumulate == 0


def test_where_features_lie_and_what_is_computed_in(make_run, tmp_path):
    run = make_run(PHASE)
    assert run.features == FeatureCacheDir(tmp_path / "features", 50 * 10**9)
    assert run.dtype == np.float32
    run = make_run(PHASE, feature_dir="/elsewhere", feature_gigabytes=0.5, precision="bfloat16")
    assert run.features == FeatureCacheDir(Path("/elsewhere"), 500_000_000)
    assert str(run.dtype) == "bfloat16"


@pytest.mark.parametrize(("setting", "expected"), [("none", [1, 1, 1]), ("balanced", [0.5, 1, 2])])
def test_class_weights(make_run, setting, expected):
    run = make_run(PHASE, class_weights=setting)
    chosen = [
        index
        for label, count in ((0, 8), (1, 4), (2, 2))
        for index in np.flatnonzero(run.train.labels == label)[:count]
    ]
    weights = dataclasses.replace(run, train=run.train.subset(chosen)).class_weights()
    np.testing.assert_allclose(weights / weights[1], expected, rtol=1e-6)


@pytest.mark.parametrize("choice", ["error", "skip"])
def test_bad_images(tmp_path, image_folder, choice):
    folder, workdir = tmp_path / "images", tmp_path / "run"
    for path in image_folder.rglob("*.png"):
        copy = folder / path.relative_to(image_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (folder / "red" / "00.png").write_bytes(b"no image")
    dataset = images_of(config(folder, on_bad_image=choice), workdir, Silent())
    if choice == "error":
        with pytest.raises(BadImageError, match=r"^red/00\.png: not an image"):
            [dataset.image(index) for index in range(len(dataset))]
    else:
        assert len(dataset) == 47
        assert "red/00.png" not in dataset.names
        (line,) = (workdir / "skipped_images.txt").read_text().splitlines()
        assert line.startswith("red/00.png: not an image")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "efficientnet_lite_tinny"},
            "unknown model 'efficientnet_lite_tinny'.*efficientnet_lite_tiny",
        ),
        ({"weights": "auto"}, f"no weights are known for '{TINY}'"),
        (
            {"schedule": Schedule((dataclasses.replace(PHASE, train="top(99)"),))},
            r"top\(99\): the backbone has",
        ),
        (
            {"schedule": Schedule((dataclasses.replace(feature_extraction().phases[0], train="all_()"),))},
            "requires a cache, but its lowest block trains",
        ),
    ],
)
def test_what_cannot_be_is_found_before_anything_is_read(changes, message):
    with pytest.raises(ValueError, match=message):
        check(config("/no/such/folder", **changes))


def test_more_parts_than_images(image_folder, tmp_path):
    with pytest.raises(ValueError, match="36 training images cannot be split into accumulate=40 parts"):
        prepare(config(image_folder, batch_size=40, accumulate=40), tmp_path, Silent())


def test_a_split_may_have_a_seed_of_its_own_and_fewer_images(toy_images):
    def names(**changes) -> list[list]:
        return [list(part.names) for part in split_images(toy_images, config("toy", **changes))]

    assert names(seed=3, split_seed=1) == names(seed=1)
    train, held_out = names(seed=1)
    few, same = names(seed=1, images_per_class=4)
    assert same == held_out
    assert len(few) == 12
    assert {*few} < {*train}
    with pytest.raises(ValueError, match="images_per_class must be at least 1, got 0"):
        config("toy", images_per_class=0)
