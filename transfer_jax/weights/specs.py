"""Specs of pretrained weights: their source, hash, preprocessing and licence."""

import csv
import dataclasses
import functools
from pathlib import Path

from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.registry import model_names, variant_of
from transfer_jax.storage import atomic_write
from transfer_jax.weights import hub
from transfer_jax.weights.preprocessing_files import read_preprocessing

_MAX_HASHED = 4 << 30
"""The size of the largest file that is compared with published hashes, in bytes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSpec:
    """One set of pretrained weights.

    Attributes:
        name: The name of the set, for `find_spec`.
        model: The name of the network.
        address: The address of the file (see `hub`).
        sha256: SHA-256 of the file, or its first digits; None if it was not published.
        md5: MD5 of the file, for files that are published with no other hash; else None.
        classes: Number of classes of the pretrained classifier; 0 if the file has none.
        preprocessing: The preprocessing of the input images.
        licence: SPDX identifier of the weights' licence; None if it is unknown.
        accuracy: Published top-1 accuracy on ImageNet, in percent; None if it is unknown.
        entry: The part of the file to load: the name of a state dict in a checkpoint that has several, such
            as `state_dict_ema`, or the prefix of the keys, such as `teacher`. Empty for the only one.
        notes: Sentences about the preprocessing, if it was read from a file beside the weights.
        origin: Name of the network that the file is known to be of; "" if it is not known.
        origin_evidence: The reason, as a sentence without a full stop.
    """

    name: str
    model: str
    address: str
    sha256: str | None = None
    md5: str | None = None
    classes: int = 1000
    preprocessing: Preprocessing
    licence: str | None = None
    accuracy: float | None = None
    entry: str = ""
    notes: tuple[str, ...] = ()
    origin: str = ""
    origin_evidence: str = ""

    def present(self) -> bool:
        """Returns whether the file is on this machine."""
        return hub.locate(self.address) is not None

    def path(self) -> Path:
        """Returns the file, downloaded if needed and checked against its hash; see `hub.fetch` for errors."""
        return hub.fetch(self.address, self.sha256, self.md5)


@functools.cache
def _catalogue() -> dict[str, WeightsSpec]:
    """Returns the specs of the package by name. Specs of files in Python packages come first."""
    lines = Path(__file__).with_name("catalogue.csv").read_text(encoding="utf-8").splitlines()
    return {row["name"]: _spec(row) for row in csv.DictReader(lines)}


def _spec(row: dict[str, str]) -> WeightsSpec:
    return WeightsSpec(
        name=row["name"],
        model=row["model"],
        address=row["address"],
        sha256=row["sha256"] or None,
        md5=row["md5"] or None,
        classes=int(row["classes"]),
        preprocessing=Preprocessing(
            image_size=int(row["image_size"]),
            crop_fraction=float(row["crop_fraction"]),
            interpolation=row["interpolation"],
            mean=_per_channel(row["mean"]),
            std=_per_channel(row["std"]),
            channel_order=row["channel_order"] or "rgb",
        ),
        licence=row["licence"] or None,
        accuracy=float(row["accuracy"]) if row["accuracy"] else None,
        origin=row["model"],
        origin_evidence="the weights were published for it",
    )


def _per_channel(values: str) -> tuple[float, float, float]:
    red, green, blue = map(float, values.split())
    return red, green, blue


def specs() -> tuple[WeightsSpec, ...]:
    """Returns the specs of all sets of weights that have a name."""
    return tuple(_catalogue().values())


def find_spec(model: str, weights: str = "auto", entry: str = "") -> WeightsSpec:
    """Returns the spec of a set of weights for a network.

    Args:
        model: Name of the network.
        weights: `auto` takes the weights published for the network; if there are several sets, one that is on
            this machine, else the first. Otherwise the name of a spec, an address as in `hub`, or the path of
            a file or a folder. `MODEL:PATH` states the network of a file that fits several; see `origin`.
        entry: The part of the file to load; see `WeightsSpec.entry`.

    Raises:
        ValueError: If the spec or the file does not exist, or the spec belongs to another network.
    """
    known = _catalogue()
    own = [spec for spec in known.values() if spec.model == model]
    if weights == "auto":
        if not own:
            raise ValueError(
                f"there are no published weights for {model!r}; give the path of a file, or choose a network "
                f"with published weights: {_first_few({spec.model for spec in known.values()})}"
            )
        return _with_entry(next((spec for spec in own if spec.present()), own[0]), entry)
    if weights in known:
        spec = known[weights]
        if spec.model != model:
            raise ValueError(
                f"the weights {weights!r} belong to {spec.model!r}, not to {model!r}; "
                "choose weights of the same network"
            )
        return _with_entry(spec, entry)
    stated, address = stated_network(weights)
    if hub.is_remote(address) or Path(address).exists():
        spec = WeightsSpec(
            name=weights,
            model=model,
            address=address,
            preprocessing=variant_of(model).preprocessing,
            entry=entry,
            origin=stated,
            origin_evidence=f"{weights} states it",
        )
        return spec if hub.is_remote(address) else _with_description(spec, Path(address))
    names = f"one of {', '.join(spec.name for spec in own)}" if own else "a published set (there are none)"
    raise ValueError(f"no weights {weights!r} for {model!r}: neither an existing file nor {names}")


def stated_network(weights: str) -> tuple[str, str]:
    """Returns the network that `MODEL:ADDRESS` states, or "", and the address."""
    stated, sign, address = weights.partition(":")
    known = sign and address and stated in model_names()
    return (stated, address) if known else ("", weights)


def _with_description(spec: WeightsSpec, path: Path) -> WeightsSpec:
    """Returns the spec of a local file with the preprocessing of its published set, or of files beside it."""
    published = published_file(path) if path.is_file() else None
    beside, notes = read_preprocessing(path, published.preprocessing if published else spec.preprocessing)
    if published is None:
        return dataclasses.replace(spec, preprocessing=beside, notes=notes)
    kind = "SHA-256" if published.sha256 else "MD5"
    found = f"the file is {published.name}, according to its {kind}: its preprocessing is used"
    if beside != published.preprocessing:
        found += f", not that of a description in {path.parent}"
    origin, evidence = published.model, f"its {kind} is that of {published.name}"
    if spec.origin:
        origin, evidence = spec.origin, spec.origin_evidence
    return dataclasses.replace(
        spec,
        preprocessing=published.preprocessing,
        notes=(found,),
        origin=origin,
        origin_evidence=evidence,
    )


def published_file(path: Path) -> WeightsSpec | None:
    """Returns the spec of a published file, found by the hash of its content; None if it is none.

    Only sets with a published hash are found: those of torchvision, Keras and packages.
    """
    status = path.stat()
    if status.st_size > _MAX_HASHED:
        return None
    return _published_file(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _published_file(path: Path, size: int, changed: int) -> WeightsSpec | None:
    del size, changed  # part of the cache's key
    with path.open("rb") as file:
        kind = "md5" if file.read(8) == b"\x89HDF\r\n\x1a\n" else "sha256"
    digest = atomic_write.digest(path, kind)
    hashes = ((getattr(spec, kind), spec) for spec in _catalogue().values())
    return next((spec for known, spec in hashes if known and digest.startswith(known)), None)


def _with_entry(spec: WeightsSpec, entry: str) -> WeightsSpec:
    return dataclasses.replace(spec, entry=entry) if entry else spec


def _first_few(names: set[str], count: int = 8) -> str:
    more = f" and {len(names) - count} others" if len(names) > count else ""
    return ", ".join(sorted(names)[:count]) + more
