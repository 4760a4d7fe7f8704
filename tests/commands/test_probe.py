"""The command `probe` on the toy network and images."""

import dataclasses

import numpy as np
import pytest

from transfer_jax import cli
from transfer_jax.config import TrainConfig
from transfer_jax.data import load_dataset, stratified_split
from transfer_jax.models import create_model
from transfer_jax.models.registry import variant_of
from transfer_jax.runs.extract_features import extract_features
from transfer_jax.search.knn_probe import knn_probe


@pytest.mark.usefixtures("toy")
def test_depths_are_scored_on_the_validation_images_of_a_run(image_folder, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = ["--images", str(image_folder), "--model", "toy", "--weights", "none", "--image-size", "16"]
    assert cli.main(["probe", *options, "--at", "stem", "pre_logits"]) == 0
    shown = capfd.readouterr().out
    assert "36 training and 12 validation examples" in shown
    assert shown.count("pre_logits") >= 2
    config = TrainConfig(images=str(image_folder), model="toy", weights="none", image_size=16)
    dataset = load_dataset(config.images)
    train, validation = stratified_split(dataset, config.val_fraction, config.seed)

    preprocessing = dataclasses.replace(variant_of("toy").preprocessing, image_size=16)
    features = extract_features(
        create_model("toy", 3), dataset, ["stem", "pre_logits"], preprocessing=preprocessing
    )
    expected = knn_probe(features, dataset, np.asarray(validation.rows))
    assert len(train) == 36
    for name, accuracy in expected.values.items():
        line = next(line for line in shown.splitlines() if line.strip().startswith(name))
        assert f"{accuracy:.1%}" in line
    assert not [*tmp_path.iterdir()]  # Nothing is written.


@pytest.mark.usefixtures("toy")
def test_unknown_blocks_are_named(image_folder, capfd):
    options = ["--images", str(image_folder), "--model", "toy", "--weights", "none"]
    assert cli.main(["probe", *options, "--at", "stam"]) == 2
    assert "no block 'stam'; did you mean stem" in " ".join(capfd.readouterr().err.split())
