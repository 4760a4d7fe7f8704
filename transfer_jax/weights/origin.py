"""The network that a weight file is of, where several networks have the same arrays.

Loaded into the wrong one of them, a file gives wrong outputs without any error. The origin of a file is found
in this order: a network that the user states; its hash, if it is a published file; the record of an export of
this package; what the file or a `config.json` beside it says; the only network that the library computes; the
names of the file and of its folders.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.weights.key_mapping import KeyMap
from transfer_jax.weights.layouts import OWN
from transfer_jax.weights.same_arrays import difference, with_same_arrays
from transfer_jax.weights.specs import WeightsSpec, find_spec, specs
from transfer_jax.weights.structures import backbone_shapes

_LIBRARIES = {"hf://timm/": "timm", "https://download.pytorch.org/": "torchvision"}
"""The libraries by the beginnings of the addresses of their weights."""
_LITE = "both sides are padded equally, and epsilon is 1e-05"
_FOREIGN = {
    "timm": {
        **{f"efficientnet_lite{scale}": (f"efficientnet_lite{scale}", _LITE) for scale in range(5)},
        **{f"tf_efficientnetv2_{size}": (f"efficientnetv2_{size}", _LITE) for size in "sml"},
    }
}
"""Networks of a library that are not available here, by ours with the same arrays: name and difference."""
_ABSENT = {
    "timm": re.compile(r"keras_|siglip_|dinov3_|tv_|mobilenet_v3_|efficientnet_v2_"),
    "torchvision": re.compile(r"keras_|tf_|mobilenetv3_|efficientnet_b[567]"),
    "transformers": re.compile(r"efficientnet_|tv_|vit_.*(siglip|dinov3)"),
    "big_vision": re.compile(r"vit_.*siglip"),
    "vision_transformer": re.compile(r"vit_.*siglip"),
}
"""The beginnings of the names of networks that a library lacks: it computes others with the same arrays."""
_ALSO = {
    "timm": {
        "tf_mobilenetv3_large_100": "keras_mobilenet_v3_large",
        "tf_mobilenetv3_small_100": "keras_mobilenet_v3_small",
    }
}
"""Networks of a library that compute the same as one here, other than those in the catalogue."""
_RARE = re.compile(r"(se)?res(net|next)aa")
"""Names of networks whose files are assumed to say so; files without a name are of the plain networks."""
_OF = "'s "
_MAX_BYTES = 10_000_000
_FOLDERS = 4
"""The number of names of folders that may have the name of a network, the nearest first."""


class WrongNetworkError(ValueError):
    """An error for a weight file that is of another network with the same arrays, or may be of one."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """The networks that a file may be of.

    Attributes:
        networks: Their names. `timm's NAME` is a network of that library that is not available here.
        evidence: The reason, such as "according to config.json"; "" if there is none.
    """

    networks: tuple[str, ...]
    evidence: str = ""


def check_origin(spec: WeightsSpec, library: str, metadata: Mapping[str, str]) -> str:
    """Checks that a file is of the network of a spec, not of another one with the same arrays.

    Args:
        spec: The weights.
        library: The library whose names the file has.
        metadata: What the file says of itself, by name.

    Returns:
        A sentence on networks that differ in their preprocessing only; "" if there are none.

    Raises:
        WrongNetworkError: If the file is of another network, or may be of another one.
    """
    if spec.origin == spec.model:
        return ""
    others = rivals(spec.model, library)
    if not others:
        return _other_preprocessing(spec)
    found = origin_of((spec.model, *others), library, spec, metadata)
    if found.networks == (spec.model,) or (found.evidence and spec.model in found.networks):
        return ""
    likely = [name for name in found.networks if found.evidence or not _RARE.match(name)]
    if likely == [spec.model]:
        return (
            f"nothing says which network they are of; {_listed(others)} has the same arrays but computes "
            f"differently ({_difference(spec.model, others[0])})"
        )
    other = next(name for name in found.networks if name != spec.model)
    unlike = _difference(spec.model, other)
    if found.evidence:
        advice = f"{other} is not available here" if _is_foreign(other) else f"choose the network {other}"
        raise WrongNetworkError(
            f"the weights {spec.name} are of {other}, not of {spec.model}: {found.evidence}. Both have the "
            f"same arrays but compute differently ({unlike}); {advice}"
        )
    raise WrongNetworkError(
        f"the weights {spec.name} may be of {spec.model} or of {_listed(others)}, which have the same arrays "
        f"but compute differently ({unlike}). Neither the file nor its name says which; if they are of "
        f"{spec.model}, give them as {spec.model}:{spec.address}"
    )


def recommendation(models: Sequence[str], library: str, weights: str, metadata: Mapping[str, str]) -> str:
    """Returns sentences that recommend one of the networks that a file fits; "" if there is no difference.

    Args:
        models: The networks that the file fills.
        library: The library whose names the file has.
        weights: The path of the file or folder.
        metadata: What the file says of itself, by name.
    """
    sentence = ""
    for model in models:
        others = [name for name in rivals(model, library) if name in models or _is_foreign(name)]
        if not others:
            continue
        found = origin_of((model, *others), library, find_spec(model, weights), metadata)
        unlike = _difference(model, next((name for name in found.networks if name != model), others[0]))
        if found.evidence and model in found.networks:
            return (
                f"It is of {model}: {found.evidence}. {_listed(others)} would compute differently ({unlike})."
            )
        if found.evidence and _is_foreign(found.networks[0]):
            sentence = f"It is of {found.networks[0]}, which is not available here: {found.evidence}."
        elif not found.evidence:
            sentence = sentence or (
                f"{model} and {_listed(others)} compute differently ({unlike}), and neither the file nor its "
                "name says which it is of; state it as MODEL:PATH."
            )
    return sentence


def origin_of(models: Sequence[str], library: str, spec: WeightsSpec, metadata: Mapping[str, str]) -> Origin:
    """Returns those of several networks with the same arrays that a file may be of.

    Args:
        models: The networks.
        library: The library whose names the file has.
        spec: The weights.
        metadata: What the file says of itself, by name.
    """
    path = None if spec.address.startswith(("hf://", "http")) else Path(spec.address)
    folder = path if path is None or path.is_dir() else path.parent
    if spec.origin in models:
        return Origin((spec.origin,), spec.origin_evidence)
    for evidence, text in _records(path, folder, metadata):
        if text in models:
            return Origin((text,), evidence)
    names = _names(models, library)
    for evidence, text in _statements(folder, metadata):
        if found := _named(text, names):
            return Origin(_kept(models, found), evidence)
    if folder is not None and (found := _from_transformers(models, _json(folder / "config.json"))):
        return Origin(found, f"according to {folder / 'config.json'}")
    computed = [name for name in models if _computes(library, name)]
    if len(computed) == 1:
        return Origin(tuple(computed), f"it has the names of {library}, which has no other of these networks")
    for part in [*reversed(re.split(r"[/\\]", spec.address)[-_FOLDERS:])]:
        if found := _named(part, names):
            return Origin(_kept(models, found), f"its path has the name {part!r}")
    return Origin(tuple(models))


def rivals(model: str, library: str) -> tuple[str, ...]:
    """Returns the networks with the same arrays as a network in a library's names that compute differently.

    A network of the library that is not available here has the name `LIBRARY's NAME`.
    """
    path = next(iter(backbone_shapes(model)))
    foreign = _FOREIGN.get(library, {}).get(model)
    return (
        *(
            other
            for other in with_same_arrays(model)
            if difference(model, other) and KeyMap(other, library).keys(path)
        ),
        *([f"{library}{_OF}{foreign[0]}"] if foreign else []),
    )


def _difference(model: str, other: str) -> str:
    if not _is_foreign(other):
        return f"in {model}, {difference(model, other)}"
    return f"in {other}, {_FOREIGN[other.partition(_OF)[0]][model][1]}"


def _is_foreign(name: str) -> bool:
    return _OF in name


def _records(
    path: Path | None, folder: Path | None, metadata: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yields the names of networks in this package, as files that it wrote state them, with the evidence."""
    record = _parsed(metadata.get(OWN, ""))
    yield "according to the record of its export", str(record.get("model", ""))
    if "format" not in metadata:
        yield "according to its metadata", metadata.get("model", "")
    if path is None or folder is None:
        return
    for file in (path.with_name(f"{path.name}.json"), folder / "model.json", folder / "model" / "model.json"):
        yield f"according to {file}", str(_json(file).get("model", ""))


def _statements(folder: Path | None, metadata: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the names of networks in their library, with the evidence."""
    if folder is not None:
        file = folder / "config.json"
        yield f"according to {file}", str(_json(file).get("architecture", ""))
    for name, text in metadata.items():
        if name != OWN:
            yield f"according to {name} in the file", text[:_MAX_BYTES]


def _named(text: str, names: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Returns the networks whose names are in a text; a name inside of a longer one does not count."""
    spans = {
        (found.start(), found.end()): networks
        for name, networks in names.items()
        for found in re.finditer(rf"{re.escape(name)}(?![a-zA-Z0-9])", text)
    }
    whole = [
        networks
        for (start, stop), networks in spans.items()
        if not any((a <= start and stop <= b) and (a, b) != (start, stop) for a, b in spans)
    ]
    return frozenset.intersection(*whole) if whole else frozenset()


def _kept(models: Sequence[str], found: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in models if name in set(found))


def _names(models: Sequence[str], library: str) -> dict[str, frozenset[str]]:
    """Returns the networks by the names that they have in a library, or else in this package."""
    names = {name: frozenset((name,)) for name in models}
    for name, networks in _library_names().get(library, {}).items():
        if networks & set(models):
            names[name] = networks
    for model in filter(_is_foreign, models):
        names[model.partition(_OF)[2]] = frozenset((model,))
    return names


def _computes(library: str, name: str) -> bool:
    """Returns whether a library may have a network that computes the same as one here."""
    absent = _ABSENT.get(library.removesuffix("-5").removesuffix("-base"))
    return absent is None or not absent.match(name) or name in _ALSO.get(library, {}).values()


@functools.cache
def _library_names() -> dict[str, dict[str, frozenset[str]]]:
    """Returns the networks here by library and by their names there."""
    found: dict[str, dict[str, frozenset[str]]] = {library: {} for library in _LIBRARIES.values()}
    for spec in specs():
        library = next((each for start, each in _LIBRARIES.items() if spec.address.startswith(start)), None)
        if library is None:
            continue
        part = spec.address.split("/")[-2 if library == "timm" else -1]
        name = re.split(r"[.-]", part, maxsplit=1)[0]
        found[library][name] = found[library].get(name, frozenset()) | {spec.model}
    for library, names in _ALSO.items():
        found[library].update({name: frozenset((model,)) for name, model in names.items()})
    return found


def _from_transformers(models: Sequence[str], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the networks that compute as a config of transformers says; none if it does not say."""
    left = list(models)
    if isinstance(config.get("tf_padding"), bool):
        left = [name for name in left if getattr(_shape(name), "same", None) == config["tf_padding"]]
    vision = config.get("vision_config")
    activation = {**config, **(vision if isinstance(vision, dict) else {})}.get("hidden_act")
    if activation in ("quick_gelu", "gelu") and family_of(models[0]).name == "clip":
        left = [name for name in left if ("quickgelu" in name) == (activation == "quick_gelu")]
    return tuple(left) if len(left) < len(models) else ()


def _shape(name: str) -> Any:
    return None if _is_foreign(name) else variant_of(name).shape


def _other_preprocessing(spec: WeightsSpec) -> str:
    """Returns a sentence on networks that compute the same and have another preprocessing."""
    if spec.notes or spec.origin or spec.preprocessing != variant_of(spec.model).preprocessing:
        return ""
    others = [
        name
        for name in with_same_arrays(spec.model)
        if not difference(spec.model, name) and variant_of(name).preprocessing != spec.preprocessing
    ]
    if not others:
        return ""
    return (
        f"the preprocessing is that of {spec.model}; {_listed(others)} computes the same on images that are "
        "prepared differently"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _json(file: Path) -> dict[str, Any]:
    try:
        small = file.is_file() and file.stat().st_size < _MAX_BYTES
        return _parsed(file.read_text(encoding="utf-8-sig")) if small else {}
    except (OSError, ValueError):
        return {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
