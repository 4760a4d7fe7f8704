"""Descriptions of adapters: the kind, the layers and the settings. This module imports no JAX."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

KernelParts = Literal["", "q", "k", "v", "qk", "qv", "kv", "qkv"]
"""The parts of a layer named `qkv`, which has three kernels side by side; "" for the kernel as a whole."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter:
    """The description of an adapter, without its arrays.

    Attributes:
        name: Name of the adapter; its arrays have paths such as `backbone/blocks.0/fc1/adapters/NAME/a`.
        layers: Paths of the adapted modules, such as `backbone/blocks.0/fc1`, input side first.
    """

    kind: ClassVar[str]
    changes_weights: ClassVar[bool] = True
    """True if the adapter changes weights only, so that it can be merged into them."""

    name: str
    layers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the description as JSON values."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Adapter":
        """Returns the description that `to_json` wrote.

        Raises:
            ValueError: If the kind is unknown, or a value is missing or unknown.
        """
        kind = values.get("kind")
        fields = {name: value for name, value in values.items() if name != "kind"}
        if kind not in KINDS:
            raise ValueError(f"unknown kind of adapter {kind!r}; the kinds are {', '.join(KINDS)}")
        try:
            return KINDS[kind](**{**fields, "layers": tuple(fields["layers"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"invalid adapter of the kind {kind}: {error}") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(Adapter):
    """Low-rank updates of kernels: `W + alpha / rank * A B`, with `B = 0` at the start.

    Source: Hu et al. 2021, arXiv:2106.09685. A convolution's kernel is the matrix
    `(height * width * inputs, outputs)`.

    Attributes:
        rank: Rank of each update.
        alpha: Numerator of the scale of the updates.
        parts: The kernels of queries, keys and values, by their first letters, that are adapted in layers
            named `qkv`; each has an update of its own. "" gives the three one common update.
    """

    kind: ClassVar[str] = "lora"
    rank: int = 4
    alpha: float = 8.0
    parts: KernelParts = "qv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dora(Lora):
    """Low-rank updates of the directions of kernels, with a trained length for each output.

    The kernel is `m * V / |V|` with `V = W + alpha / rank * A B`; `|V|` is the norm over the inputs, which is
    a constant for gradients. `m` is `|W|` at the start.

    Source: Liu et al. 2024, arXiv:2402.09353, section 4.3 for the gradient.
    """

    kind: ClassVar[str] = "dora"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ia3(Adapter):
    """Factors of activations, 1 at the start: keys, values, and the inputs of the perceptrons' last layers.

    In layers named `qkv` they multiply keys and values, in layers named `fc2` the inputs, in all others the
    outputs.

    Source: Liu et al. 2022, arXiv:2205.05638.
    """

    kind: ClassVar[str] = "ia3"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts(Adapter):
    """Trained tokens that are added to the images' tokens; the layers are blocks of a transformer.

    Source: Jia et al. 2022 (VPT), arXiv:2203.12119. The tokens follow all others, and their outputs are
    dropped before the pooling.

    Attributes:
        tokens: Number of trained tokens.
        deep: True gives each block tokens of its own, which replace those of the block before it; False adds
            tokens at the first block only.
    """

    kind: ClassVar[str] = "prompts"
    changes_weights: ClassVar[bool] = False
    tokens: int = 10
    deep: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel(Adapter):
    """Small perceptrons beside those of the blocks: `scale * relu(x D + d) U + u` is added to the output.

    `U`, `d` and `u` are 0 at the start. The layers are the modules that contain `fc1` and `fc2`; `x` is the
    input of `fc1`.

    Source: Chen et al. 2022 (AdaptFormer), arXiv:2205.13535; He et al. 2021, arXiv:2110.04366.

    Attributes:
        width: Number of channels inside.
        scale: Factor of the output.
    """

    kind: ClassVar[str] = "parallel"
    changes_weights: ClassVar[bool] = False
    width: int = 16
    scale: float = 0.1


KINDS: dict[str, type[Adapter]] = {kind.kind: kind for kind in (Lora, Dora, Ia3, Prompts, Parallel)}
"""The kinds of adapters by name."""


def is_adapter_path(path: str) -> bool:
    """Returns True if a path is that of an array of an adapter."""
    return "/adapters/" in path


def adapter_paths(paths: Iterable[str], names: Iterable[str]) -> list[str]:
    """Returns those of the paths that are of arrays of the named adapters, in order."""
    parts = tuple(f"/adapters/{name}/" for name in names)
    return [path for path in paths if any(part in path for part in parts)]
