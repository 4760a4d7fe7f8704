"""Strict loading of weights from files of any library into a model, with a report."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

import jax
import numpy as np

from transfer_jax.counted import counted
from transfer_jax.fields import as_tuple
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.identify import closest_families, matching_models
from transfer_jax.weights.key_mapping import BOOKKEEPING, KeyMap
from transfer_jax.weights.not_finite import not_finite
from transfer_jax.weights.origin import check_origin
from transfer_jax.weights.other_parts import head_layers, other_parts
from transfer_jax.weights.placement import Placement, find_network, shapes_of
from transfer_jax.weights.readers import (
    CheckpointError,
    LazyWeights,
    SeveralStateDictsError,
    error_prefix,
    read_weights,
)
from transfer_jax.weights.readers.entries import several
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
        unused: Keys of the file that are no part of the network's backbone, such as another head, a loss, or
            an average of the weights beside them.
        prefix: The prefix of the network's keys in the file, such as `module.`; "" if there is none.
        choices: Sentences about the choice of the file in a folder, and of the network.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], str, tuple[int, ...]], ...]
    adapted: tuple[str, ...]
    skipped: tuple[str, ...]
    unused: tuple[str, ...] = ()
    prefix: str = ""
    choices: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the choices that were made: file, prefix, arrays that are not used."""
        notes = [*self.choices]
        if self.prefix:
            notes.append(f"the network is below {self.prefix!r} in the file")
        if self.unused:
            unused = counted(len(self.unused), "array of the file is", "arrays of the file are")
            notes.append(f"{unused} not used: {_first_few(self.unused)}")
        return tuple(notes)

    @property
    def complete(self) -> bool:
        """True if nothing is missing, unexpected or mismatched."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} loaded, {len(self.skipped)} skipped", *self.notes]
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
        WeightsMismatchError: If the file lacks a parameter, has more arrays in the backbone, or has another
            shape.
        WrongNetworkError: If the file is of another network with the same arrays, or may be of one.
        SeveralStateDictsError: If the file has the network several times; `spec.entry` chooses one.
        FileNotFoundError: If the file does not exist, or downloads are off.
        ConnectionError: If the download fails.
        CheckpointError: If the file is damaged, has no such entry, or has values that are not finite.
    """
    path = spec.path()
    with error_prefix(path):
        source = open_network(spec, model)
        note = ""
        if spec.origin != spec.model:
            place, _ = _place(model, source, spec, _skipped_patterns(spec, head, skip))
            note = check_origin(spec, place.key_map.library, source.metadata) if place.complete else ""
        report = load_arrays(model, source, spec, head=head, skip=skip)
    return dataclasses.replace(report, choices=(*source.notes, *([note] if note else [])))


def open_network(spec: WeightsSpec, model: Classifier) -> LazyWeights:
    """Opens the file of a spec at its entry. Without one, it takes the only entry that has the network.

    Raises:
        SeveralStateDictsError: If several entries have the network, or none of several.
    """
    try:
        return read_weights(spec.path(), entry=spec.entry or None)
    except SeveralStateDictsError as error:
        fitting = [name for name, shapes in error.shapes.items() if _has_network(spec.model, model, shapes)]
        if not fitting:
            raise
        if len(fitting) > 1:
            raise several({name: error.shapes[name] for name in fitting}) from None
    return read_weights(spec.path(), entry=fitting[0])


def _has_network(name: str, model: Classifier, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Returns whether arrays of these shapes fill the backbone of a network."""
    _, params, stats = split(model)
    backbone = {path: array for path, array in {**params, **stats}.items() if path.startswith("backbone/")}
    targets = shapes_of(backbone)
    try:
        place = find_network(name, targets, shapes, targets)
    except SeveralStateDictsError:
        return True
    return place.complete and place.fits(targets, shapes)


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
        CheckpointError: If an array has values that are not finite.
    """
    patterns = _skipped_patterns(spec, head, skip)

    def is_skipped(*names: str) -> bool:
        return any(pattern.search(name) for pattern in patterns for name in names)

    _, params, stats = split(model)
    targets = {**params, **stats}
    shapes = shapes_of(source)
    place, needed = _place(model, source, spec, patterns)
    key_map, prefix = place.key_map, place.prefix
    bad: dict[str, int] = {}
    loaded, missing, mismatched, adapted, skipped, used = {}, [], [], [], [], set()
    for path, target in targets.items():
        keys = [prefix + key for key in key_map.keys(path)]
        if is_skipped(path, *keys, *key_map.keys(path)):
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
                mismatched += [(path, target.shape, key, shapes[key]) for key in keys]
            else:
                with np.errstate(over="ignore"):  # a value that is too large becomes infinite
                    array = np.asarray(array, target.dtype)
                if count := not_finite(array):
                    bad[keys[0]] = count
                loaded[path] = _on_device(array)
    rest = [key for key in source if key not in used and not BOOKKEEPING.search(key)]
    if not head:
        own = {prefix + key for key in _library_head_keys(spec.model, key_map)}
        rest = [key for key in rest if key not in own]
    ignored = {key for key in rest if is_skipped(key, key.removeprefix(prefix))}
    inside = [key for key in rest if key.startswith(prefix) and key not in ignored]
    unused = {key for key in rest if not key.startswith(prefix)}
    if not head:
        unused |= _other_parts(spec.model, prefix, inside, shapes, needed, key_map)
    report = LoadReport(
        loaded=tuple(loaded),
        missing=tuple(missing),
        unexpected=tuple(key for key in inside if key not in unused),
        mismatched=tuple(mismatched),
        adapted=tuple(adapted),
        skipped=(*skipped, *(key for key in rest if key in ignored)),
        unused=tuple(key for key in rest if key in unused),
        prefix=prefix,
    )
    if not report.complete:
        raise WeightsMismatchError(
            f"the weights {spec.name} do not match the network {spec.model}: {report}{_hint(report, shapes)}"
        )
    if bad:
        raise _not_finite_error(bad)
    empty = [path for path in skipped if isinstance(targets.get(path), jax.ShapeDtypeStruct)]
    if empty:
        raise WeightsMismatchError(
            f"skipped parameters of an abstract model have no values: {_first_few(empty)}; "
            "do not skip them, or create the model with values"
        )
    update(model, loaded)
    return report


def _skipped_patterns(spec: WeightsSpec, head: bool, skip: Sequence[str]) -> list[re.Pattern[str]]:
    patterns = (*as_tuple(skip), *family_of(spec.model).ignored_keys, *(() if head else (r"^head/",)))
    return [re.compile(pattern) for pattern in patterns]


def _place(
    model: Classifier, source: Mapping[str, np.ndarray], spec: WeightsSpec, patterns: list[re.Pattern[str]]
) -> tuple[Placement, list[str]]:
    """Returns the place of the network in the file, and the paths of the parameters that it must have."""
    _, params, stats = split(model)
    targets = {**params, **stats}
    needed = [path for path in targets if path.startswith("backbone/")]
    needed = [path for path in needed if not any(pattern.search(path) for pattern in patterns)]
    return find_network(spec.model, shapes_of(targets), shapes_of(source), needed), needed


def _not_finite_error(bad: Mapping[str, int]) -> CheckpointError:
    (key, count), others = next(iter(bad.items())), len(bad) - 1
    more = f", and so {'has' if others == 1 else 'have'} {counted(others, 'other array')} "
    more = f"{more}({_first_few([*bad][1:])})" if others else ""
    values = counted(count, "value that is", "values that are")
    return CheckpointError(
        f"the array {key} has {values} NaN or infinite{more}; the file is damaged, or its "
        "training diverged: take another file or an earlier checkpoint"
    )


def _on_device(array: np.ndarray) -> jax.Array:
    """Returns a copy on the device. The array may be a view of a file, and the file may change.

    JAX copies a strided array, such as the transpose of a kernel, and does so faster than NumPy. On a CPU, it
    keeps using the memory of a contiguous array, so this function copies such an array first.
    """
    if array.flags.c_contiguous:
        array = np.array(array)
    return jax.device_put(array).block_until_ready()


def _library_head_keys(model: str, key_map: KeyMap) -> set[str]:
    """Returns the keys of the published classifier."""
    paths = [f"{layer}/{leaf}" for layer in head_layers(model) for leaf in ("kernel", "bias")]
    return {key for path in paths for key in key_map.keys(path)}


def _other_parts(
    model: str,
    prefix: str,
    keys: Iterable[str],
    shapes: Mapping[str, tuple[int, ...]],
    needed: Iterable[str],
    key_map: KeyMap,
) -> set[str]:
    used = [key for path in needed for key in key_map.keys(path)]
    rest = {key.removeprefix(prefix): shapes[key] for key in keys}
    return {prefix + key for key in other_parts(rest, used, key_map, layers=head_layers(model))}


def _hint(report: LoadReport, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Returns a text with the networks that the file fits, or with the most similar families."""
    nearest = closest_families(shapes)
    fitting, _ = matching_models(shapes, nearest[:1])
    if fitting:
        return f"; the file fits {_first_few(fitting)}"
    few = nearest if len(report.loaded) < len(report.missing) else []
    return f"; the keys are most similar to {', '.join(map(str, few))}" if few else ""


def _first_few(names: Sequence[str], count: int = 3) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
