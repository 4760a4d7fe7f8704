"""The workdir and the config of a run, for trackers."""

import json
from pathlib import Path
from typing import Any

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import feature_extraction


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "cells"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def config() -> dict[str, Any]:
    return json.loads(json.dumps(TrainConfig(images="elpv", schedule=feature_extraction()).to_json()))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A PNG of 30 x 20 pixels, red."""
    from matplotlib.image import imsave

    imsave(tmp_path / "curves.png", [[(1.0, 0.0, 0.0)] * 30] * 20)
    return tmp_path / "curves.png"
