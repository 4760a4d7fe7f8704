"""Low-rank updates of frozen kernels, which are merged into plain weights when their phase ends.

Source: Hu et al. 2021 (LoRA), arXiv:2106.09685: W = W0 + (alpha / rank) A B with B = 0 at first. In layers
called `qkv`, which hold the three projections of an attention side by side, the query's and the value's are
adapted, as there.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax.freezing.selectors import Selector, SelectorError
from transfer_jax.models.flat_arrays import Arrays

_PARTS = {"qkv": (3, (0, 2))}
"""By layer: how many kernels it holds side by side, and which of them are adapted."""


@dataclasses.dataclass(frozen=True)
class LoraUpdates:
    """The low-rank updates of some kernels; with no kernels it does nothing.

    Attributes:
        kernels: Paths of the kernels.
        rank: Rank of each update.
        alpha: Updates are scaled by `alpha / rank`.
    """

    kernels: tuple[str, ...] = ()
    rank: int = 1
    alpha: float = 1.0

    @classmethod
    def of(cls, selector: Selector, paths: tuple[str, ...], rank: int, alpha: float) -> "LoraUpdates":
        """Those of the kernels that a selector picks.

        Raises:
            SelectorError: If it picks none.
        """
        chosen = selector.select(paths)
        kernels = tuple(path for path in paths if path in chosen and path.endswith("/kernel"))
        if not kernels:
            raise SelectorError(
                f"lora={selector} picks no kernel to adapt, but {', '.join(sorted(chosen)[:3])}; "
                "the kernels are role('kernel')"
            )
        return cls(kernels, rank, alpha)

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the factors."""
        return tuple(
            path for kernel in self.kernels for pair in self._pairs(kernel) for path in (pair[0], pair[1])
        )

    def initial(self, arrays: Mapping[str, jax.Array], seed: int) -> Arrays:
        """The factors at the start: A uniform in +-1 / sqrt(inputs), B zero."""
        draw, found = np.random.default_rng(seed), {}
        for kernel in self.kernels:
            inputs, outputs = _sides(arrays[kernel].shape)
            for first, second, (_, width) in self._pairs(kernel, outputs):
                limit = inputs**-0.5
                found[first] = jnp.asarray(draw.uniform(-limit, limit, (inputs, self.rank)), jnp.float32)
                found[second] = jnp.zeros((self.rank, width), jnp.float32)
        return found

    def merged(self, arrays: Mapping[str, jax.Array]) -> Arrays:
        """The arrays with each update added to its kernel, and without the factors."""
        factors = {*self.paths}
        found = {path: array for path, array in arrays.items() if path not in factors}
        for path in self.kernels:
            kernel = arrays[path].reshape(-1, arrays[path].shape[-1])
            for first, second, (start, width) in self._pairs(path, kernel.shape[-1]):
                update = self.alpha / self.rank * (arrays[first] @ arrays[second])
                kernel = kernel.at[:, start : start + width].add(update.astype(kernel.dtype))
            found[path] = kernel.reshape(arrays[path].shape)
        return found

    def _pairs(self, kernel: str, outputs: int = 0) -> Iterator[tuple[str, str, tuple[int, int]]]:
        """The two factors of each update of a kernel, with its first column and its width."""
        count, chosen = _PARTS.get(kernel.split("/")[-2], (1, (0,)))
        for part in chosen:
            name = f"{kernel}/{part}" if count > 1 else kernel
            width = outputs // count
            yield f"{name}/lora_a", f"{name}/lora_b", (part * width, width)


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """Inputs and outputs of a kernel as a matrix."""
    return int(np.prod(shape[:-1])), shape[-1]
