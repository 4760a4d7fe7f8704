"""Low-rank updates of frozen kernels, merged into the kernels at the end of a phase.

Source: Hu et al. 2021 (LoRA), arXiv:2106.09685: W = W0 + (alpha / rank) A B with B = 0 at the start. Layers
named `qkv` contain the kernels of query, key and value side by side; those of query and value are adapted, as
in the paper.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.freezing.selectors import Selector, SelectorError
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.models.paths import block_of

_PARTS = {"qkv": (3, (0, 2))}
"""By name of layer: number of kernels side by side, and positions of those that are adapted."""


@dataclasses.dataclass(frozen=True)
class LoraUpdates:
    """The low-rank updates of a set of kernels, which may be empty.

    Attributes:
        kernels: Paths of the adapted kernels.
        rank: Rank of each update.
        alpha: Numerator of the scale of the updates, `alpha / rank`.
    """

    kernels: tuple[str, ...] = ()
    rank: int = 1
    alpha: float = 1.0

    @classmethod
    def of(cls, selector: Selector, paths: tuple[str, ...], rank: int, alpha: float) -> "LoraUpdates":
        """Returns the updates of the kernels that a selector selects.

        Args:
            selector: Selector of the kernels; other parameters that it selects are ignored.
            paths: Paths of all parameters in the order of their blocks.
            rank: Rank of each update.
            alpha: Numerator of the scale of the updates.

        Raises:
            SelectorError: If it selects no kernel.
        """
        chosen = selector.select({path: block_of(path) for path in paths})
        kernels = tuple(path for path in paths if path in chosen and path.endswith("/kernel"))
        if not kernels:
            raise SelectorError(
                f"lora={selector} selects no kernel, only {', '.join(sorted(chosen)[:3])}; "
                "role('kernel') selects all kernels"
            )
        return cls(kernels, rank, alpha)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the factors A and B of all updates."""
        return tuple(
            path for kernel in self.kernels for pair in self._pairs(kernel) for path in (pair[0], pair[1])
        )

    def initial(self, arrays: Mapping[str, jax.Array], seed: int) -> Arrays:
        """Returns the factors at the start: A uniform in +-1 / sqrt(inputs), B zero.

        Args:
            arrays: Arrays by path, which include the kernels.
            seed: Seed of the random values.

        Returns:
            float32 factors by path: A `(inputs, rank)` and B `(rank, outputs)`.
        """
        rng, factors = np.random.default_rng(seed), {}
        for kernel in self.kernels:
            inputs, outputs = _sides(arrays[kernel].shape)
            for first, second, (_, width) in self._pairs(kernel, outputs):
                limit = inputs**-0.5
                factors[first] = jnp.asarray(rng.uniform(-limit, limit, (inputs, self.rank)), jnp.float32)
                factors[second] = jnp.zeros((self.rank, width), jnp.float32)
        return factors

    def merged(self, arrays: Mapping[str, jax.Array]) -> Arrays:
        """Returns the arrays with each update added to its kernel, without the factors."""
        factors = {*self.paths}
        merged = {path: array for path, array in arrays.items() if path not in factors}
        for path in self.kernels:
            kernel = arrays[path].reshape(-1, arrays[path].shape[-1])
            for first, second, (start, width) in self._pairs(path, kernel.shape[-1]):
                update = self.alpha / self.rank * (arrays[first] @ arrays[second])
                kernel = kernel.at[:, start : start + width].add(update.astype(kernel.dtype))
            merged[path] = kernel.reshape(arrays[path].shape)
        return merged

    def _pairs(self, kernel: str, outputs: int = 0) -> Iterator[tuple[str, str, tuple[int, int]]]:
        """Yields the paths of the two factors of each update of a kernel, its first column and its width."""
        count, chosen = _PARTS.get(kernel.split("/")[-2], (1, (0,)))
        for part in chosen:
            name = f"{kernel}/{part}" if count > 1 else kernel
            width = outputs // count
            yield f"{name}/lora_a", f"{name}/lora_b", (part * width, width)


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns the numbers of inputs and outputs of a kernel as a matrix."""
    return int(np.prod(shape[:-1])), shape[-1]
