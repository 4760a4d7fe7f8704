"""Two finished runs: a convolutional network with trained last blocks, and a fully trained transformer."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from transfer_jax import Phase, Schedule, TrainConfig, create_model, fit
from transfer_jax.data import ImageDataset, image_fetch
from transfer_jax.diagnostics.finished_run import FinishedRun
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import variant_of
from transfer_jax.report.progress import Silent
from transfer_jax.weights.key_mapping import to_library

TINY, SIZE = "efficientnet_lite_tiny", 64


@pytest.fixture(scope="session")
def table(image_folder: Path, toy_images: ImageDataset) -> Path:
    """Returns a table of the toy images in two groups; every fourth image is in the first group."""
    rows = [
        f"{toy_images.class_names[label]}/{index:02}.png,{toy_images.class_names[label]},"
        f"{'left' if index % 4 == 0 else 'right'}"
        for index, label in enumerate(toy_images.labels)
    ]
    path = image_folder.parent / "table.csv"
    path.write_text("\n".join(["path,label,group", *(f"{image_folder.name}/{row}" for row in rows)]))
    return path


@pytest.fixture(scope="session")
def weights(toy_images: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a file of random weights of the tiny network, with the running statistics of the toy images."""
    model = create_model(TINY, 3)
    preprocessing = dataclasses.replace(variant_of(TINY).preprocessing, image_size=SIZE)
    model.set_attributes(nnx.BatchNorm, use_running_average=False, momentum=0.0)
    graphdef, params, stats = split(model)
    pixels = image_fetch(toy_images, preprocessing)(np.arange(24))["image"]

    @jax.jit
    def settled(arrays, pixels):
        model = merge(graphdef, arrays)
        model.backbone(preprocessing.normalize(pixels))
        return split(model)[2]

    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(to_library(TINY, {**params, **settled({**params, **stats}, pixels)}), file)
    return file


def _config(table: Path, model: str, train: str, **settings) -> TrainConfig:
    phase = Phase(name="only", train=train, epochs=3, learning_rate=1e-3, norm="train")
    return TrainConfig(
        images=f"csv:{table}",
        model=model,
        schedule=Schedule((phase,)),
        batch_size=12,
        threads=1,
        **settings,
    )


@pytest.fixture(scope="session")
def convolutional(table: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the workdir of a run that trained the last two blocks and the head."""
    workdir = tmp_path_factory.mktemp("convolutional")
    settings = {"weights": str(weights), "measure_every": 3, "image_size": SIZE, "split_seed": 1}
    fit(_config(table, TINY, "top(2)", **settings), workdir)
    return workdir


@pytest.fixture(scope="session")
def transformer(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the workdir of a run that trained the whole network."""
    workdir = tmp_path_factory.mktemp("transformer")
    fit(_config(table, "vit_nano_patch8_32", "all_()", weights="none"), workdir)
    return workdir


@pytest.fixture(params=["convolutional", "transformer"])
def workdir(request: pytest.FixtureRequest) -> Path:
    """Returns the workdir of each of the two runs."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def finished(workdir: Path) -> FinishedRun:
    return FinishedRun(workdir, Silent())
