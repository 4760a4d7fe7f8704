"""The command `check`."""

import numpy as np
import pytest
from PIL import Image

from transfer_jax import cli


@pytest.mark.parametrize(
    ("options", "printed"),
    [((), False), (("--keep-together",), False), (("--val-fraction", "0.25"), True)],
)
def test_images_are_split_as_by_train(toy, tmp_path, monkeypatch, capfd, options, printed):
    monkeypatch.setenv("TRANSFER_JAX_DATA", str(tmp_path / "data"))
    rng = np.random.default_rng(0)
    for i, name in enumerate(("cat", "cat", "dog", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3)).astype(np.uint8))
        coarse.resize((48, 48)).save(tmp_path / "photos" / name / f"{i}.png")
    command = ("check", "--images", str(tmp_path / "photos"), "--model", toy, "--weights", "none")
    assert cli.main([*command, *options]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert ("cannot be split: val_fraction 0.25 leaves 1 validation image for" in out) == printed
    assert ("cannot be split" in out) == printed
    assert "4 images (cat 2, dog 2)" in out
