"""Strict loading of weights from files of any library into a model, with a report."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.identify import closest_families
from transfer_jax.weights.key_mapping import BOOKKEEPING, KeyMap, detect
from transfer_jax.weights.readers import read_weights
from transfer_jax.weights.resize_params import resize_param
from transfer_jax.weights.specs import WeightsSpec


class WeightsMismatchError(ValueError):
    """An error for a weight file that does not match a model exactly."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """The result for every parameter of the model and every key of the file.

    Attributes:
        loaded: Paths of parameters that were loaded.
        missing: Paths of parameters that the file lacks.
        unexpected: Keys of the file that the model lacks.
        mismatched: One tuple (path, expected shape, key, shape in the file) for each array of another shape.
        adapted: One text for each array that was converted to another image size or number of channels.
        skipped: Paths and keys that match `skip`, that belong to the head, or that the family ignores.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], str, tuple[int, ...]], ...]
    adapted: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True if nothing is missing, unexpected or mismatched."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded, {len(self.skipped)} skipped"]
        lines += self.adapted
        if self.missing:
            lines.append(f"{len(self.missing)} missing in the file: {_first_few(self.missing)}")
        if self.unexpected:
            lines.append(f"{len(self.unexpected)} unexpected in the file: {_first_few(self.unexpected)}")
        if self.mismatched:
            shown = [
                f"{path} has shape {want}, but {key} in the file has {have}"
                for path, want, key, have in self.mismatched
            ]
            lines.append(f"{len(self.mismatched)} of another shape: {_first_few(shown)}")
        return "; ".join(lines)


def load_pretrained(
    model: Classifier, spec: WeightsSpec, *, head: bool = False, skip: Sequence[str] = ()
) -> LoadReport:
    """Loads the weights of a spec into a model, in place.

    Args:
        model: The model. Its backbone may be abstract (see `create_model`).
        spec: The weights.
        head: Whether to load the classifier too. False keeps the model's own new head.
        skip: Regular expressions. Paths of the model and keys of the file that match one are skipped.

    Returns:
        The report, which is complete.

    Raises:
        WeightsMismatchError: If the file lacks a parameter, has an unknown key, or has another shape.
        FileNotFoundError: If the file does not exist, or downloads are off.
        ConnectionError: If the download fails.
        CheckpointError: If the file is damaged, or holds anything but tensors.
    """
    return load_arrays(model, read_weights(spec.path()), spec, head=head, skip=skip)


def load_arrays(
    model: Classifier,
    source: Mapping[str, np.ndarray],
    spec: WeightsSpec,
    *,
    head: bool = False,
    skip: Sequence[str] = (),
) -> LoadReport:
    """Loads arrays into a model, in place; as `load_pretrained`, for arrays in memory.

    Args:
        model: The model. Its backbone may be abstract.
        source: The arrays, by the keys of any library that the family supports.
        spec: The weights' spec, for the name of the network and for messages.
        head: As for `load_pretrained`.
        skip: As for `load_pretrained`.

    Returns:
        The report, which is complete.

    Raises:
        WeightsMismatchError: If the arrays lack a parameter, have an unknown key, or have another shape.
    """
    skipped_patterns = (*skip, *family_of(spec.model).ignored_keys, *(() if head else (r"^head/",)))
    patterns = [re.compile(pattern) for pattern in skipped_patterns]

    def is_skipped(*names: str) -> bool:
        return any(pattern.search(name) for pattern in patterns for name in names)

    _, params, stats = split(model)
    targets = {**params, **stats}
    key_map = detect(spec.model, targets, source)
    loaded, missing, mismatched, adapted, skipped, used = {}, [], [], [], [], set()
    for path, target in targets.items():
        keys = key_map.keys(path)
        if is_skipped(path, *keys):
            skipped.append(path)
            used.update(keys)
        elif not keys or not all(key in source for key in keys):
            missing.append(path)
        else:
            used.update(keys)
            array = key_map.import_array(path, [source[key] for key in keys])
            if array is not None and array.shape != target.shape:
                array, done = resize_param(path, array, target.shape, variant_of(spec.model).resampling) or (
                    None,
                    "",
                )
                adapted += [done] if done else []
            if array is None:
                mismatched += [(path, target.shape, key, source[key].shape) for key in keys]
            else:
                loaded[path] = _on_device(array, target.dtype)
    used |= _library_head_keys(spec.model, key_map, source) if not head else set()
    rest = [key for key in source if key not in used and not BOOKKEEPING.search(key)]
    report = LoadReport(
        loaded=tuple(loaded),
        missing=tuple(missing),
        unexpected=tuple(key for key in rest if not is_skipped(key)),
        mismatched=tuple(mismatched),
        adapted=tuple(adapted),
        skipped=(*skipped, *(key for key in rest if is_skipped(key))),
    )
    if not report.complete:
        raise WeightsMismatchError(
            f"the weights {spec.name} do not match the network {spec.model}: {report}{_hint(report, source)}"
        )
    empty = [path for path in skipped if isinstance(targets.get(path), jax.ShapeDtypeStruct)]
    if empty:
        raise WeightsMismatchError(
            f"skipped parameters of an abstract model have no values: {_first_few(empty)}; "
            "do not skip them, or create the model with values"
        )
    update(model, loaded)
    return report


def _on_device(array: np.ndarray, dtype: np.dtype[Any]) -> jax.Array:
    """Returns a copy on the device. The array may be a view of a file, and the file may change.

    JAX copies a strided array, such as the transpose of a kernel, and does so faster than NumPy. On a CPU, it
    keeps using the memory of a contiguous array, so this function copies such an array first.
    """
    array = np.asarray(array, dtype)
    if array.flags.c_contiguous:
        array = np.array(array)
    return jax.device_put(array).block_until_ready()


def _library_head_keys(model: str, key_map: KeyMap, source: Mapping[str, np.ndarray]) -> set[str]:
    """Returns the keys of the published classifier, whose layers may differ from the model's own head."""
    layers = ["classifier", *(f"hidden/{index}" for index in range(len(variant_of(model).hidden)))]
    paths = [f"head/{layer}/{leaf}" for layer in layers for leaf in ("kernel", "bias")]
    return {key for path in paths for key in key_map.keys(path) if key in source}


def _hint(report: LoadReport, source: Iterable[str]) -> str:
    """Returns a text with the most similar families, if most parameters are missing in the file."""
    nearest = closest_families(source) if len(report.loaded) < len(report.missing) else []
    return f"; the keys are most similar to {', '.join(map(str, nearest))}" if nearest else ""


def _first_few(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
