"""What the end-to-end tests share: small folders of images that can be learnt, and ways to run a command."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import save_file

from transfer_jax import TrainConfig, cli, create_model
from transfer_jax.data import image_fetch, load_dataset
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import variant_of
from transfer_jax.weights.key_mapping import to_library

CLASSES = ("blue", "green", "red")
_PROGRESS = re.compile(r"[a-z].*: [\d,]+/[\d,]+(, |$)")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, and all that it printed."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> list[str]:
        """The lines on stderr, without those that show progress, such as `training head: 80/80, 4.9/s`."""
        lines = [line for line in self.err.splitlines() if line.strip() and "━" not in line]
        return [line for line in lines if not _PROGRESS.match(line)]


@pytest.fixture(scope="session")
def draw() -> Callable[..., Path]:
    """Fills a folder with images whose colour tells their class."""

    def fill(folder: Path, each: int, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        for label, name in enumerate(classes):
            (folder / name).mkdir(parents=True)
            for index in range(each):
                pixels = rng.integers(0, 10, 3) + rng.integers(0, 4, (40, 40, 3))
                pixels[..., 2 - label] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:02}.png")
        return folder

    return fill


@pytest.fixture(scope="session")
def images(draw: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 images of three classes; not to be changed."""
    return draw(tmp_path_factory.mktemp("images") / "colours", 20)


@pytest.fixture(scope="session")
def weights(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny network, in PyTorch's layout, whose features tell the colours apart.

    They are random, but the running statistics are those of the images: with the initial ones the
    activations of a random network fade on their way up.
    """
    name = "efficientnet_lite_tiny"
    preprocessing = variant_of(name).preprocessing
    dataset = load_dataset(str(images))
    pixels = image_fetch(dataset, preprocessing)(np.arange(0, len(dataset), 2))["image"]

    @jax.jit
    def resolve(arrays, pixels):
        model = merge(graphdef, arrays)
        model.backbone(preprocessing.normalize(pixels))
        return split(model)[2]

    model = create_model(name, 3)
    model.eval()
    model.set_attributes(nnx.BatchNorm, use_running_average=False, momentum=0.0)
    graphdef, params, stats = split(model)
    arrays = {**params, **resolve({**params, **stats}, pixels)}
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(to_library(name, arrays), file)
    return file


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = int(left.code or 0)
        out, err = capsys.readouterr()
        return Outcome(code, str(out), str(err))

    return run


@pytest.fixture(scope="session")
def start() -> Callable[..., Outcome]:
    """Runs a program to its end, as if on a wide terminal; Python, if no other is given."""

    def start(*arguments: object, before: tuple[str, ...] = (sys.executable,)) -> Outcome:
        done = subprocess.run(
            [*before, *map(str, arguments)],
            env={**os.environ, "COLUMNS": "1000"},
            capture_output=True,
            text=True,
            timeout=1800,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture(scope="session")
def write_config() -> Callable[[Path, TrainConfig], Path]:
    """Writes a config as an experiment file."""

    def write(path: Path, config: TrainConfig) -> Path:
        names = "Augmentation, Phase, Schedule, TrainConfig"
        path.write_text(f"from transfer_jax import {names}\n\nconfig = {config!r}\n")
        return path

    return write
