"""Fills a model from a file of another library, strictly, and says what it did."""

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
    """A file does not fill a model exactly."""


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of every parameter of the model and every key of the file.

    Attributes:
        loaded: Paths that were filled.
        missing: Paths that the file has nothing for.
        unexpected: Keys of the file that the model has no place for.
        mismatched: (path, shape wanted, key, shape found).
        adapted: What was done to arrays that were trained on images of another size or other channels.
        skipped: Paths and keys left out because the caller said so, or because the family leaves them out.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], str, tuple[int, ...]], ...]
    adapted: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, unexpected or mismatched."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded, {len(self.skipped)} skipped"]
        lines += self.adapted
        if self.missing:
            lines.append(f"{len(self.missing)} missing in the file: {_first_few(self.missing)}")
        if self.unexpected:
            lines.append(f"{len(self.unexpected)} unexpected in the file: {_first_few(self.unexpected)}")
        if self.mismatched:
            shown = [f"{path} wants {want}, {key} has {have}" for path, want, key, have in self.mismatched]
            lines.append(f"{len(self.mismatched)} of another shape: {_first_few(shown)}")
        return "; ".join(lines)


def load_pretrained(
    model: Classifier, spec: WeightsSpec, *, head: bool = False, skip: Sequence[str] = ()
) -> LoadReport:
    """Fills a model, in place, with the weights of a spec.

    Args:
        model: The model; its backbone may be abstract (see `create_model`).
        spec: The weights.
        head: Whether to load the classifier too; False leaves the model's own new head.
        skip: Regular expressions; paths of the model and keys of the file that match are left alone.

    Returns:
        The report; it is complete.

    Raises:
        WeightsMismatchError: If a parameter stays unfilled, a key unused, or shapes differ.
        FileNotFoundError: If the file is not there.
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
    """`load_pretrained` from arrays by the keys of any library that the family has names of."""
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
        raise WeightsMismatchError(f"{spec.name} does not fill {spec.model}: {report}{_hint(report, source)}")
    empty = [path for path in skipped if isinstance(targets.get(path), jax.ShapeDtypeStruct)]
    if empty:
        raise WeightsMismatchError(f"skipped, but without values of their own: {_first_few(empty)}")
    update(model, loaded)
    return report


def _on_device(array: np.ndarray, dtype: np.dtype[Any]) -> jax.Array:
    """A copy that nothing else writes to: the array may lie in a file, and the file may change.

    JAX copies what is strided, such as the transpose of a kernel, and does so faster than NumPy. On a CPU it
    goes on using the memory of what is contiguous, so that is copied here.
    """
    array = np.asarray(array, dtype)
    if array.flags.c_contiguous:
        array = np.array(array)
    return jax.device_put(array).block_until_ready()


def _library_head_keys(model: str, key_map: KeyMap, source: Mapping[str, np.ndarray]) -> set[str]:
    """Keys of the published classifier, which may have other layers than the model's own head."""
    layers = ["classifier", *(f"hidden/{index}" for index in range(len(variant_of(model).hidden)))]
    paths = [f"head/{layer}/{leaf}" for layer in layers for leaf in ("kernel", "bias")]
    return {key for path in paths for key in key_map.keys(path) if key in source}


def _hint(report: LoadReport, source: Iterable[str]) -> str:
    """What else the file may be of, if the model is hardly found in it."""
    nearest = closest_families(source) if len(report.loaded) < len(report.missing) else []
    return f"; its keys are most like {', '.join(map(str, nearest))}" if nearest else ""


def _first_few(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
