import dataclasses
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.features import FeatureCacheDir
from transfer_jax.freezing import Phase

PHASE = Phase(name="only", train="head", epochs=1, learning_rate=0.01)


@pytest.mark.parametrize(
    ("settings", "size"),
    [({"batch_size": 32}, 32), ({"batch_size": 64}, 36), ({"batch_size": 64, "accumulate": 8}, 32)],
)
def test_a_batch_is_never_larger_than_the_dataset(make_run, settings, size):
    run = make_run(PHASE, **settings)
    assert run.batch_size == size
    assert run.batch_size % run.config.accumulate == 0


def test_the_folder_of_features_and_the_precision(make_run, tmp_path):
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
