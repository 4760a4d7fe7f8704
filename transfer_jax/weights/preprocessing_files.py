"""The preprocessing that a folder of weights describes: `config.json` of timm, `preprocessor_config.json`.

A saved model of this package has its own description, `model.json`, which comes first. After it comes timm's
`pretrained_cfg` in `config.json`, and then the image processor of transformers.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from transfer_jax.models.preprocessing import INTERPOLATIONS, Preprocessing

_PILLOW = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Names of Pillow's filters in the order of their numbers, which transformers writes."""
_MAX_BYTES = 10_000_000
_DIGITS = 4


@dataclasses.dataclass(frozen=True)
class _Described:
    """The fields of a preprocessing that a file describes, and sentences about those that it cannot use."""

    source: str
    fields: dict[str, Any]
    problems: tuple[str, ...] = ()


def read_preprocessing(path: Path, default: Preprocessing) -> tuple[Preprocessing, tuple[str, ...]]:
    """Returns the preprocessing that files beside weights describe, and sentences about what was read.

    Args:
        path: The file of the weights, or its folder.
        default: The preprocessing of the network, for fields that no file describes.
    """
    folder = path if path.is_dir() else path.parent
    described = [found for name, read in _READERS if (found := _describe(folder, name, read))]
    fields: dict[str, Any] = {}
    origins: dict[str, str] = {}
    notes = [*dict.fromkeys(problem for each in described for problem in each.problems)]
    for each in described:
        for field, value in each.fields.items():
            if field not in fields:
                fields[field], origins[field] = value, each.source
            elif not _equal(fields[field], value):
                notes.append(
                    f"{each.source} has the {_NAMES[field]} {_text(field, value)}, but {origins[field]} has "
                    f"{_text(field, fields[field])}, which is used"
                )
    if not fields:
        return default, tuple(notes)
    try:
        preprocessing = dataclasses.replace(default, **fields)
    except ValueError as error:
        sources = " and ".join(dict.fromkeys(origins.values()))
        return default, (*notes, f"the preprocessing of {sources} is not used: {error}")
    for source in dict.fromkeys(origins.values()):
        read = ", ".join(
            f"{_NAMES[field]} {_text(field, value)}"
            for field, value in fields.items()
            if origins[field] == source
        )
        notes.insert(0, f"preprocessing from {source}: {read}")
    return preprocessing, tuple(notes)


def _describe(
    folder: Path, name: str, read: Callable[[str, Mapping[str, Any]], _Described | None]
) -> _Described | None:
    file = folder / name
    try:
        if not file.is_file():
            return None
        content = (
            json.loads(file.read_text(encoding="utf-8-sig")) if file.stat().st_size < _MAX_BYTES else None
        )
    except (OSError, ValueError, RecursionError) as error:
        return _Described(str(file), {}, (f"{file} is not used: {error}",))
    return read(str(file), content) if isinstance(content, dict) else None


def _own(source: str, content: Mapping[str, Any]) -> _Described | None:
    """Returns the description of a model that this package saved."""
    names = {field.name for field in dataclasses.fields(Preprocessing)}
    saved = content.get("preprocessing")
    if not (isinstance(saved, dict) and names <= saved.keys()):
        return None
    pixels = {name: tuple(saved[name]) for name in ("mean", "std") if isinstance(saved[name], list)}
    return _Described(source, {name: saved[name] for name in names} | pixels)


def _timm(source: str, content: Mapping[str, Any]) -> _Described | None:
    """Returns the description of timm: `pretrained_cfg`, or the older form without that level."""
    nested = content.get("pretrained_cfg")
    flat = "architecture" in content and "mean" in content
    cfg = nested if isinstance(nested, dict) else content if flat else {}
    source = f"{source} (pretrained_cfg)" if cfg is nested else source
    fields, problems = _pixels(source, cfg.get("mean"), cfg.get("std"), 1 / 255, 0.0)
    size = cfg.get("input_size")
    if size is not None:
        shape = size if isinstance(size, list) and len(size) == 3 else [None]
        _put_size(fields, problems, source, shape[1:], size)
    if (crop := cfg.get("crop_pct")) is not None:
        _put_crop(fields, problems, source, crop)
    _put_filter(fields, problems, source, cfg.get("interpolation"))
    if cfg.get("crop_mode", "center") not in (None, "", "center"):
        problems.append(f"{source}: crop_mode {cfg['crop_mode']!r} is not supported; the center is cropped")
    return _Described(source, fields, tuple(problems)) if fields or problems else None


def _transformers(source: str, content: Mapping[str, Any]) -> _Described | None:
    """Returns the description of an image processor of transformers."""
    factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1.0
    mean, std = content.get("image_mean"), content.get("image_std")
    if content.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    elif content.get("include_top") and _is_color(std):  # EfficientNet divides twice
        std = [value**2 for value in std]
    if not (_is_number(factor) and factor > 0):
        return _Described(source, {}, (f"{source} is not used: rescale_factor is {factor!r}",))
    offset = 1.0 if content.get("rescale_offset") else 0.0
    fields, problems = _pixels(source, mean, std, factor, offset)
    size, crop = content.get("size"), content.get("crop_size")
    resized = _sides(size) if content.get("do_resize", True) else []
    cropped = _sides(crop) if content.get("do_center_crop", crop is not None) else []
    if cropped or resized:
        _put_size(fields, problems, source, cropped or resized, crop if cropped else size)
    shortest = isinstance(size, dict) and "shortest_edge" in size
    fraction = content.get("crop_pct")
    if fraction is not None:
        _put_crop(fields, problems, source, 1.0 if resized and min(resized) >= 384 else fraction)
    elif cropped and resized:
        _put_crop(fields, problems, source, min(1.0, min(cropped) / min(resized)))
    elif resized and not shortest:
        _put_crop(fields, problems, source, 1.0)
    resample = content.get("resample")
    if isinstance(resample, int) and 0 <= resample < len(_PILLOW):
        resample = _PILLOW[resample]
    _put_filter(fields, problems, source, resample)
    return _Described(source, fields, tuple(problems)) if fields or problems else None


def _pixels(
    source: str, mean: Any, std: Any, factor: float, offset: float
) -> tuple[dict[str, Any], list[str]]:
    """Returns mean and std on the 0..255 scale of pixels that are multiplied by a factor, minus an offset."""
    if mean is None and std is None:
        return {}, []
    if not (_is_color(mean) and _is_color(std) and all(value > 0 for value in std)):
        return {}, [f"{source}: mean {mean!r} and std {std!r} are not used; each must have three numbers"]
    if max(*map(abs, mean), *std) > 3 and factor < 1:  # on the 0..255 scale already
        factor = 1.0
    return {
        "mean": tuple(round((value + offset) / factor, _DIGITS) for value in mean),
        "std": tuple(round(value / factor, _DIGITS) for value in std),
    }, []


def _put_size(
    fields: dict[str, Any], problems: list[str], source: str, sides: list[Any], value: object
) -> None:
    if sides and all(type(side) is int and side > 0 for side in sides) and len(set(sides)) == 1:
        fields["image_size"] = sides[0]
    else:
        problems.append(f"{source}: the image size {value!r} is not used; it must be one side of a square")


def _put_crop(fields: dict[str, Any], problems: list[str], source: str, value: Any) -> None:
    if _is_number(value) and 0 < value <= 1:
        fields["crop_fraction"] = round(float(value), 6)
    else:
        problems.append(f"{source}: crop_pct {value!r} is not used; it must be in (0, 1]")


def _put_filter(fields: dict[str, Any], problems: list[str], source: str, value: object) -> None:
    if value in INTERPOLATIONS:
        fields["interpolation"] = value
    elif value is not None:
        choices = ", ".join(INTERPOLATIONS)
        problems.append(
            f"{source}: interpolation {value!r} is not supported and not used; supported: {choices}"
        )


def _sides(size: object) -> list[Any]:
    """Returns height and width, or the one side of a square, of a size of transformers."""
    if isinstance(size, dict):
        found = (
            [size["shortest_edge"]] if "shortest_edge" in size else [size.get("height"), size.get("width")]
        )
        return found if all(side is not None for side in found) else []
    if isinstance(size, list):
        return size
    return [] if size is None else [size]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_color(value: Any) -> TypeGuard[Sequence[float]]:
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_number, value))


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, tuple):
        return all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) for a, b in zip(first, second, strict=True))
    return math.isclose(first, second, rel_tol=1e-3) if _is_number(first) else first == second


def _text(field: str, value: Any) -> str:
    if field in ("mean", "std"):
        return " ".join(f"{each / 255:.4g}" for each in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_NAMES = {
    "image_size": "image size",
    "crop_fraction": "crop",
    "interpolation": "filter",
    "mean": "mean",
    "std": "std",
    "channel_order": "channel order",
}
_READERS = (
    ("model.json", _own),
    ("model/model.json", _own),
    ("config.json", _own),
    ("config.json", _timm),
    ("preprocessor_config.json", _transformers),
)
