"""The folder of a model in the layout of the Hugging Face hub.

    config.json                 the description of the model, and the entries that the hub reads
    model.safetensors           the arrays
    preprocessor_config.json    the preprocessing, as transformers writes it

`SavedModel` reads it as it reads the folder `model` of a workdir.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.storage.atomic_write import write_text

if TYPE_CHECKING:
    from transfer_jax.weights.saved_model import SavedModel

CONFIG, WEIGHTS, PREPROCESSOR, CARD = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "README.md",
)
FILES = (CONFIG, WEIGHTS, PREPROCESSOR, CARD)
"""All files of the folder; the model card is the last."""
LIBRARY = "transfer_jax"
"""The value of `library_name` by which a folder is recognized."""
_PILLOW: dict[str, int] = {"bicubic": 3, "bilinear": 2}
"""Pillow's numbers of the filters, which image processors of transformers have."""


def write_hub_folder(folder: Path, saved: "SavedModel", arrays: Mapping[str, Any]) -> None:
    """Writes a model as a folder of the hub, without its card.

    Args:
        folder: The folder; it is created if needed. Files of the same names are replaced.
        saved: The description of the model.
        arrays: The parameters and statistics by path.

    Raises:
        OSError: If writing fails.
    """
    from transfer_jax.weights.saved_model import MODEL_FILES

    saved.save(folder, arrays)
    described, weights = (folder / name for name in MODEL_FILES)
    config = {"library_name": LIBRARY, "architecture": saved.model, **json.loads(described.read_bytes())}
    os.replace(weights, folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(config, indent=2))
    described.unlink()
    write_text(folder / PREPROCESSOR, json.dumps(image_processor(saved.preprocessing), indent=2))


def is_hub_folder(folder: Path) -> bool:
    """Returns whether a folder has the `config.json` of a model of this package in the layout of the hub."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library_name") == LIBRARY


def image_processor(preprocessing: Preprocessing) -> dict[str, Any]:
    """Returns a preprocessing as transformers describes it: resize, crop, scale to 0..1, normalize."""
    size = preprocessing.image_size
    shortest = round(size / preprocessing.crop_fraction)
    flipped = {"do_flip_channel_order": True} if preprocessing.channel_order == "bgr" else {}
    return {
        "do_resize": True,
        "size": {"shortest_edge": shortest},
        "resample": _PILLOW[preprocessing.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in preprocessing.mean],
        "image_std": [value / 255 for value in preprocessing.std],
        **flipped,
    }
