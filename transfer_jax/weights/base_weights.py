"""The pretrained weights that adapters were trained on: how to load them again, and their hash."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.models import create_model
from transfer_jax.models.adapters.adapter import is_adapter_path
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.weights.loading import load_pretrained
from transfer_jax.weights.readers import CheckpointError
from transfer_jax.weights.specs import find_spec

_RESIZED = re.compile(r"/(pos_embed|relative_position_bias_table)$")
"""Arrays that depend on the image size, and are therefore not part of the hash."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseWeights:
    """The weights of a backbone.

    Attributes:
        weights: Name of the set of weights or address of a file; `none` for random weights of `seed`, `own`
            for those of a model of the user's own.
        file: The file that was read, which is tried if the name is unknown; empty for none.
        entry: The part of the file; see `WeightsSpec.entry`.
        seed: Seed of random weights.
        sha256: `backbone_hash` of the arrays.
    """

    weights: str
    file: str = ""
    entry: str = ""
    seed: int = 0
    sha256: str

    def fill(self, model: Classifier, name: str, image_size: int) -> None:
        """Loads the weights into the backbone of a model in place.

        Args:
            model: The model, without adapters; its backbone may have shapes instead of arrays.
            name: Name of the network.
            image_size: Side of the images in pixels.

        Raises:
            CheckpointError: If the weights are missing, or are others; the message names both hashes.
        """
        made = create_model(
            name,
            2,
            image_size=image_size,
            seed=self.seed,
            taps=model.backbone.taps,
            abstract_backbone=self.weights not in ("none", "own"),
        )
        if self.weights not in ("none", "own"):
            self._load(made, name)
        _, params, stats = split(made)
        update(model, {path: x for path, x in {**params, **stats}.items() if _in_backbone(path)})
        if (found := backbone_hash({**params, **stats})) != self.sha256:
            raise CheckpointError(
                f"the adapters were trained on weights of {name} with the SHA-256 {self.sha256[:12]}…, but "
                f"{self.weights!r} has {found[:12]}… now; restore those weights"
            )

    def _load(self, model: Classifier, name: str) -> None:
        problems = []
        for weights in dict.fromkeys(each for each in (self.weights, self.file) if each):
            try:
                load_pretrained(model, find_spec(name, weights, self.entry))
            except (OSError, ValueError) as error:
                problems.append(str(error))
            else:
                return
        raise CheckpointError(
            f"the adapters need the weights {self.weights!r} of {name} (SHA-256 {self.sha256[:12]}…), which "
            f"cannot be loaded: {'; '.join(problems)}"
        )


def backbone_hash(arrays: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of the arrays of a backbone, without adapters and arrays of the image size.

    Args:
        arrays: The arrays of a model by path.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in arrays if _in_backbone(path) and not _RESIZED.search(path)):
        array = np.ascontiguousarray(arrays[path])
        digest.update(f"{path} {array.dtype.name} {array.shape} ".encode())
        digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def without_base(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arrays of adapters and of the head."""
    return {path: array for path, array in arrays.items() if not _in_backbone(path)}


def base_of(
    weights: str, file: str, arrays: Mapping[str, Any], *, entry: str = "", seed: int = 0
) -> BaseWeights:
    """Returns the description of the weights of a backbone; the path of a file becomes absolute."""
    place = str(Path(file).absolute()) if file and Path(file).exists() else file
    return BaseWeights(weights=weights, file=place, entry=entry, seed=seed, sha256=backbone_hash(arrays))


def _in_backbone(path: str) -> bool:
    """Returns True for the path of an array of the pretrained network."""
    return path.startswith("backbone/") and not is_adapter_path(path)
