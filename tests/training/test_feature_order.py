"""Training on large features in object storage, by a folder that is used like a bucket."""

from pathlib import Path

import numpy as np
import pytest
from local_bucket import FolderStorage, folder, new_machine

from transfer_jax import Phase, Schedule, TrainConfig, fit
from transfer_jax.features import shard_writer
from transfer_jax.storage import object_cache
from transfer_jax.training import feature_order


@pytest.mark.parametrize("views", [0, pytest.param(2, marks=pytest.mark.extended)])
def test_large_features_in_a_bucket_are_downloaded_once_a_shard(image_folder, tmp_path, monkeypatch, views):
    new_machine(monkeypatch, tmp_path)
    monkeypatch.setattr(shard_writer, "_SHARD_BYTES", 1)
    monkeypatch.setattr(feature_order, "EXACT_BYTES", 0)
    downloads: list[str] = []
    get = FolderStorage.get_file
    monkeypatch.setattr(
        FolderStorage, "get_file", lambda self, name, to, **_: (downloads.append(name), get(self, name, to))
    )
    phase = Phase(
        name="head",
        train="head",
        epochs=3,
        learning_rate=0.01,
        cache="require",
        augment=views > 0,
        views=views,
    )
    config = TrainConfig(
        images=str(image_folder),
        model="efficientnet_lite_tiny",
        weights="none",
        image_size=32,
        batch_size=8,
        schedule=Schedule((phase,)),
        feature_dir="gs://bucket/features",
    )
    with folder(tmp_path / "storage", monkeypatch):
        first = fit(config, tmp_path / "one")
        assert downloads == []  # The machine that wrote the shards has them.
        monkeypatch.setenv(object_cache.FOLDER, str(tmp_path / "other machine"))
        again = fit(config, tmp_path / "two")
    assert downloads
    assert len({*downloads}) == len(downloads)
    assert again.phases[0].extracted == 0
    assert again.metrics == first.metrics
    for name in ("metrics.jsonl", "predictions.csv"):
        assert Path(tmp_path / "one" / name).read_text() == Path(tmp_path / "two" / name).read_text()
    assert np.isfinite(again.metrics["log_loss"])
