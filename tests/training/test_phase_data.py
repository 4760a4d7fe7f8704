import dataclasses
import itertools

import jax
import numpy as np
import pytest

from transfer_jax.data import Augmentation, view_fetch
from transfer_jax.features import make_prefix
from transfer_jax.freezing import Phase
from transfer_jax.report.progress import Silent
from transfer_jax.training.feature_extractor import FeatureExtractor
from transfer_jax.training.phase_data import make_phase_data

TURNED = Augmentation(crop_scale=None, rotate90=True)


def phase(**changes) -> Phase:
    return Phase(**{"name": "only", "train": "head", "epochs": 1, "learning_rate": 0.01, **changes})


def inputs_of(run, boundary: str | None = "pre_logits", seed: int = 0):
    return make_phase_data(run, run.config.schedule.phases[0], boundary, run.arrays, seed, Silent())


def take(inputs, count: int) -> list[dict]:
    return [inputs.complete(batch) for batch in itertools.islice(inputs.train, count)]


def features_of(run, boundary: str, images: np.ndarray) -> np.ndarray:
    prefix = make_prefix(run.graphdef, boundary, run.preprocessing, run.dtype)
    return np.asarray(jax.jit(prefix)(run.arrays, {"image": images}))


@pytest.mark.parametrize(
    ("changes", "boundary", "start"),
    [
        ({}, "pre_logits", "pre_logits"),
        ({}, "stem", "stem"),
        ({"augment": True, "views": 2, "epochs": 2}, "blocks.1", "blocks.1"),
        ({"augment": True, "views": 2}, "blocks.1", None),
        ({"cache": "require"}, "top", "top"),
        ({}, None, None),
        ({"augment": True}, "pre_logits", None),
        ({"cache": "off"}, "pre_logits", None),
    ],
)
def test_features_if_the_phase_can_use_them_else_images(make_run, changes, boundary, start):
    run = make_run(phase(**changes))
    inputs = inputs_of(run, boundary)
    assert inputs.start == start
    (batch,) = take(inputs, 1)
    assert ("features" in batch, "image" in batch) == (start is not None, start is None)
    np.testing.assert_array_equal(batch["label"], run.train.labels[batch["index"]])
    rows = 36 * max(run.config.schedule.phases[0].views, 1) + 12
    assert inputs.extracted == (rows if start else 0)
    evaluated = list(inputs.evaluate())
    assert sum(batch["mask"].sum() for batch in evaluated) == 12


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_an_epoch_has_every_image_once(make_run, cache):
    inputs = inputs_of(make_run(phase(cache=cache)))
    epochs = [np.concatenate([batch["index"] for batch in take(inputs, 6)])[i : i + 36] for i in (0, 36)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(36))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()


def test_cached_features_are_those_of_their_image(make_run):
    run = make_run(phase())
    inputs = inputs_of(run, "blocks.1")
    live = inputs_of(make_run(phase(cache="off")), "blocks.1")
    for cached, images in zip(take(inputs, 2), take(live, 2), strict=True):
        np.testing.assert_array_equal(cached["index"], images["index"])
        expected = features_of(run, "blocks.1", images["image"])
        np.testing.assert_allclose(cached["features"], expected, rtol=1e-5, atol=1e-5)
    for cached, images in zip(inputs.evaluate(), live.evaluate(), strict=True):
        expected = features_of(run, "blocks.1", images["image"])
        np.testing.assert_allclose(cached["features"], expected, rtol=1e-5, atol=1e-5)


def test_cached_views_are_drawn_from_all_views_of_their_image(make_run):
    run = make_run(phase(augment=True, views=3, epochs=3), augmentation=TURNED)
    inputs = inputs_of(run, seed=5)
    fetch = view_fetch(run.train, run.preprocessing, TURNED, 5)
    views = [features_of(run, "pre_logits", fetch(np.arange(36) + 36 * view)["image"]) for view in range(3)]
    seen = set()
    for batch in take(inputs, 9):
        for features, index in zip(batch["features"], batch["index"], strict=True):
            found = [v for v in range(3) if np.allclose(features, views[v][index], rtol=1e-4, atol=1e-4)]
            assert found, "no view of its image"
            seen.update(found if len(found) == 1 else ())
    assert seen == {0, 1, 2}


def test_cached_features_are_not_computed_again(make_run):
    run = make_run(phase())
    first, second = (
        inputs_of(run),
        inputs_of(run, seed=7),
    )  # The seed of the order does not change plain images.
    assert (first.extracted, second.extracted) == (48, 0)
    assert first.compile_seconds > 0
    assert second.compile_seconds == 0
    above = {**run.arrays, "head/classifier/bias": run.arrays["head/classifier/bias"] + 1}
    below = {**run.arrays, "backbone/stem/norm/mean": run.arrays["backbone/stem/norm/mean"] + 1}
    assert inputs_of(dataclasses.replace(run, arrays=above)).extracted == 0
    assert inputs_of(dataclasses.replace(run, arrays=below)).extracted == 48


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"batch_size": 6}, 0),
        ({"image_size": 24}, 36),
        ({"crop": 0.5}, 36),
        ({"precision": "bfloat16"}, 36),
        ({"prefix_precision": "bfloat16"}, 36),
        ({"prefix_precision": "float32"}, 0),
        ({"feature_precision": "int8"}, 36),
        ({"precision": "bfloat16", "feature_precision": "bfloat16"}, 36),
        ({"images": slice(None, None, -1)}, 36),
        ({"augmentation": TURNED, "views": 1}, 36),
    ],
)
def test_what_the_features_of_a_dataset_depend_on(make_run, change, rows):
    run = make_run(phase())
    extract = FeatureExtractor(run, "stem", run.arrays).extract
    assert extract(run.train, Silent(), "").rows == 36
    other = dict(change)
    views = {name: other.pop(name) for name in ("augmentation", "views") if name in other}
    preprocessing = dataclasses.replace(
        run.preprocessing, image_size=other.pop("image_size", 16), crop_fraction=other.pop("crop", 1.0)
    )
    train = run.train.subset(np.arange(36)[other.pop("images")]) if "images" in other else run.train
    run = dataclasses.replace(
        run, preprocessing=preprocessing, config=dataclasses.replace(run.config, **other), train=train
    )
    again = FeatureExtractor(run, "stem", run.arrays).extract(run.train, Silent(), "", **views)
    assert again.rows == rows
    stored = run.config.feature_precision
    assert again.cache.manifest.row_format.arrays["features"].stored == (
        str(run.prefix_dtype) if stored == "auto" else stored
    )
    assert again.cache.arrays["features"].shape == (preprocessing.image_size // 2,) * 2 + (8,)


def test_views_depend_on_their_seed(make_run):
    run = make_run(phase())
    extract = FeatureExtractor(run, "stem", run.arrays).extract
    first = extract(run.train, Silent(), "", TURNED, 2, seed=1)
    assert first.rows == len(first.cache) == 72
    assert extract(run.train, Silent(), "", TURNED, 2, seed=1).rows == 0
    other = extract(run.train, Silent(), "", TURNED, 2, seed=2)
    assert other.rows == 72
    found, known = (each.cache.gather(np.arange(72))["features"] for each in (other, first))
    assert not np.array_equal(found, known)
    labels = np.load(first.cache.directory / "labels.npy")
    np.testing.assert_array_equal(labels, [*run.train.labels, *run.train.labels])


def test_features_are_computed_from_those_at_a_lower_boundary(make_run, tmp_path):
    views = {"augmentation": TURNED, "views": 2, "seed": 3}
    run = make_run(phase())
    direct = FeatureExtractor(run, "top", run.arrays).extract(run.train, Silent(), "", **views).cache
    elsewhere = make_run(phase(), feature_dir=str(tmp_path / "elsewhere"))
    FeatureExtractor(elsewhere, "stem", run.arrays).extract(run.train, Silent(), "", **views)
    trained = {
        **run.arrays,
        "backbone/blocks.1/project/conv/kernel": run.arrays["backbone/blocks.1/project/conv/kernel"] + 1,
    }
    origins = []
    for arrays in (run.arrays, trained):
        found = FeatureExtractor(elsewhere, "top", arrays).extract(run.train, Silent(), "", **views)
        assert found.rows == 72
        origins.append(found.cache)
    assert [cache.manifest.origin for cache in origins] == ["stem", "stem"]
    rows = np.arange(72)
    near, far, exact = (each.gather(rows)["features"] for each in (*origins, direct))
    np.testing.assert_allclose(near, exact, rtol=1e-5, atol=1e-5)
    assert not np.allclose(far, exact, rtol=1e-3)


@pytest.mark.parametrize("tier", ["disk", "memory"])
def test_shared_features_are_of_all_images_whatever_the_split(make_run, tier):
    runs = [make_run(phase(), shared_features=True, seed=seed, feature_tier=tier) for seed in (0, 1)]
    first, second = (inputs_of(dataclasses.replace(run, arrays=runs[0].arrays), "blocks.1") for run in runs)
    assert (first.extracted, second.extracted) == (48, 0)
    assert len(list(runs[0].features.root.glob("[!.]*"))) == 1
    for run, inputs in zip(runs, (first, second), strict=True):
        live = inputs_of(make_run(phase(cache="off"), seed=run.config.seed), "blocks.1")
        for cached, images in zip(take(inputs, 3), take(live, 3), strict=True):
            np.testing.assert_array_equal(cached["index"], images["index"])
            expected = features_of(runs[0], "blocks.1", images["image"])
            np.testing.assert_allclose(cached["features"], expected, rtol=1e-5, atol=1e-5)
        for name in ("evaluate", "evaluate_training"):
            for cached, images in zip(getattr(inputs, name)(), getattr(live, name)(), strict=True):
                expected = features_of(runs[0], "blocks.1", images["image"])
                np.testing.assert_allclose(cached["features"], expected, rtol=1e-5, atol=1e-5)


def test_shared_features_do_not_depend_on_other_caches(make_run):
    run = make_run(phase(), shared_features=True)
    FeatureExtractor(run, "stem", run.arrays).features(run.train, Silent(), "")
    found = FeatureExtractor(run, "top", run.arrays).features(run.evaluation, Silent(), "")
    assert found.cache.manifest.origin is None
    np.testing.assert_array_equal(found.rows, run.evaluation.rows)


@pytest.mark.parametrize("changes", [{}, {"augment": True, "views": 2, "epochs": 2}, {"cache": "off"}])
def test_training_images_are_scored_without_augmentation(make_run, changes):
    run = make_run(phase(**changes), augmentation=TURNED)
    inputs, plain = inputs_of(run, "blocks.1"), inputs_of(make_run(phase(cache="off")), "blocks.1")
    found = 0
    for batch, images in zip(inputs.evaluate_training(), plain.evaluate_training(), strict=True):
        found += int(batch["mask"].sum())
        if "features" in batch:
            expected = features_of(run, "blocks.1", images["image"])
            np.testing.assert_allclose(batch["features"], expected, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(batch["image"], images["image"])
    assert found == 36


def test_extraction_reports_its_progress(make_run):
    class Watch(Silent):
        def __init__(self) -> None:
            self.heard: list = []

        def start(self, task, total, *, done=0):
            self.heard.append((task, total))

        def advance(self, images, **values):
            self.heard.append(images)

        def finish(self):
            self.heard.append("finished")

    run, watch = make_run(phase()), Watch()
    FeatureExtractor(run, "stem", run.arrays).extract(run.train, watch, "extracting")
    assert watch.heard == [("extracting", 36), 32, 4, "finished"]
