"""Sets of pretrained weights: where they come from, and what they expect as input."""

import csv
import dataclasses
import functools
from pathlib import Path

from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.registry import variant_of
from transfer_jax.weights import hub


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSpec:
    """One set of pretrained weights.

    Attributes:
        name: The name it is asked for by.
        model: The network it fills.
        address: Where the file is: see `hub`.
        sha256: Hash of the file, or its first digits; None if none was published.
        md5: The same of another kind, where that is all that was published.
        classes: Number of classes of its own classifier; 0 if it has none.
        preprocessing: What it expects as input.
        licence: SPDX identifier of the weights' licence; None if it is not known.
        accuracy: Published top-1 accuracy on ImageNet, in percent; None if it is not known.
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

    def present(self) -> bool:
        """Whether the file is on this machine."""
        return hub.locate(self.address) is not None

    def path(self) -> Path:
        """The file, downloaded if need be, and checked against its hash; errors are those of `hub.fetch`."""
        return hub.fetch(self.address, self.sha256, self.md5)


@functools.cache
def _catalogue() -> dict[str, WeightsSpec]:
    """The specs that come along, those that a package carries first."""
    lines = Path(__file__).with_name("catalogue.csv").read_text().splitlines()
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
    )


def _per_channel(values: str) -> tuple[float, float, float]:
    red, green, blue = map(float, values.split())
    return red, green, blue


def specs() -> tuple[WeightsSpec, ...]:
    """Every set of weights that is known by name."""
    return tuple(_catalogue().values())


def find_spec(model: str, weights: str = "auto") -> WeightsSpec:
    """The spec that `weights` means for a network.

    Args:
        model: Name of the network.
        weights: `auto` for the weights published for the network: of several sets, one that is on this
            machine, or else the first. Or the name of a spec, an address as in `hub`, or a path, of a
            file or a folder.

    Raises:
        ValueError: If there is no such spec, no such file, or it belongs to another network.
    """
    known = _catalogue()
    own = [spec for spec in known.values() if spec.model == model]
    if weights == "auto":
        if not own:
            raise ValueError(
                f"no weights are known for {model!r}; give the path of a file. "
                f"Known are those of {_first_few({spec.model for spec in known.values()})}"
            )
        return next((spec for spec in own if spec.present()), own[0])
    if weights in known:
        spec = known[weights]
        if spec.model != model:
            raise ValueError(f"the weights {weights!r} are of {spec.model!r}, not of {model!r}")
        return spec
    if hub.is_remote(weights) or Path(weights).exists():
        return WeightsSpec(
            name=weights, model=model, address=weights, preprocessing=variant_of(model).preprocessing
        )
    choices = ", ".join(spec.name for spec in own) or "nothing known"
    raise ValueError(f"no weights {weights!r} for {model!r}: neither a file nor one of {choices}")


def _first_few(names: set[str], count: int = 8) -> str:
    more = f" and {len(names) - count} others" if len(names) > count else ""
    return ", ".join(sorted(names)[:count]) + more
