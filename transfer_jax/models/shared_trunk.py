"""Several classifiers that run the blocks which they have in common once."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from transfer_jax.models.backbone import Backbone, Classifier
from transfer_jax.models.flat_arrays import Arrays, merge, split


class _Step(NamedTuple):
    """A module that is run on the output of another step.

    Attributes:
        before: Position of the step whose output is the input; None for the images.
        graphdef: Definition of the module.
    """

    before: int | None
    graphdef: nnx.GraphDef


class SharedTrunk:
    """Several classifiers as one function, which computes each common block once.

    Blocks are common if they and all blocks below them have the same operations and the same arrays, such as
    those below the lowest block that a run trained. Models of the user's own, and networks whose heads read
    all blocks, share the whole backbone or nothing.

    Args:
        models: The classifiers by name. They are put into inference mode.

    Attributes:
        arrays: The arrays of all steps, each common one once, by position of the step and path.
        steps: Number of modules that are run: blocks and heads.
        shared: Names of the blocks that all models have in common, input side first.
    """

    def __init__(self, models: Mapping[str, Classifier]) -> None:
        self.arrays: dict[str, Arrays] = {}
        self.shared: tuple[str, ...] = ()
        self._steps: list[_Step] = []
        self._ends: dict[str, int] = {}
        known: dict[Any, int] = {}
        blocks: dict[str, list[tuple[str, int]]] = {}
        for name, model in models.items():
            model.eval()
            at, blocks[name] = None, []
            parts: list[tuple[str, Any]] = [*_modules(model.backbone), ("head", model.head)]
            for block, module in parts:
                graphdef, params, stats = split(module)
                arrays = {**params, **stats}
                key = (at, graphdef, _digest(arrays))
                if key not in known:
                    known[key] = len(self._steps)
                    self.arrays[str(known[key])] = arrays
                    self._steps.append(_Step(at, graphdef))
                at = known[key]
                blocks[name].append((block, at))
            assert at is not None
            self._ends[name] = at
        common = set.intersection(*({*each} for each in blocks.values())) if blocks else set()
        if blocks:
            self.shared = tuple(block for block, at in next(iter(blocks.values())) if (block, at) in common)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classifiers."""
        return tuple(self._ends)

    @property
    def steps(self) -> int:
        """Number of modules that are run: blocks and heads."""
        return len(self._steps)

    def __call__(self, arrays: Mapping[str, Arrays], x: jax.Array) -> dict[str, jax.Array]:
        """Returns the outputs of each classifier by name, `(batch, outputs)`.

        Args:
            arrays: The attribute `arrays`, which is an argument so that programs do not contain it.
            x: Normalized images `(batch, height, width, 3)`, or other inputs of the networks.
        """
        found: list[Any] = []
        for index, step in enumerate(self._steps):
            module: Any = merge(step.graphdef, arrays[str(index)])
            found.append(module(x if step.before is None else found[step.before]))
        return {name: found[index] for name, index in self._ends.items()}


def _modules(backbone: Backbone) -> Iterator[tuple[str, Any]]:
    """Yields the modules of a backbone that are run one after the other, by name."""
    if backbone.taps or not backbone.startable(backbone.block_names[-1]):
        yield "backbone", backbone
        return
    for name in backbone.block_names:
        yield name, getattr(backbone, name)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for path, array in sorted(arrays.items()):
        value = np.ascontiguousarray(array)
        digest.update(f"{path} {value.dtype.name} {value.shape} ".encode())
        digest.update(value.reshape(-1).view(np.uint8).data if value.size else b"")
    return digest.hexdigest()
