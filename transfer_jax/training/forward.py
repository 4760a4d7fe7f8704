"""The forward pass of a model, from a batch to logits."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.features import decode, in_slices, model_inputs
from transfer_jax.models.flat_arrays import Arrays, cast_floats, dtypes, merge, split
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.remat_names import Remat
from transfer_jax.nn.batch_shard import gather, shards_blocks

Batch = Mapping[str, Any]
INPUTS = ("image", "inputs", "features", "scale")
"""Entries of a batch that are inputs of the model; see `Forward.inputs`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """The forward pass, from a batch to logits.

    Attributes:
        graphdef: Definition of the model, with the trainable blocks in training mode.
        start: The boundary of the batch's `features`; None for batches of images.
        preprocessing: The preprocessing that the weights need.
        prefix: End of the blocks without gradients and in inference mode, such as those below the trainable
            ones, or all of them to evaluate; None if there are none.
        remat: Activations that the backward pass recomputes; see `Backbone`.
        scan_layers: Runs equal blocks under a scan; see `Backbone`.
        dtype: Precision of the computation.
        prefix_dtype: Precision of the blocks of the prefix.
    """

    graphdef: nnx.GraphDef
    start: str | None
    preprocessing: Preprocessing
    prefix: str | None = None
    remat: Remat = "none"
    scan_layers: bool = False
    dtype: jax.typing.DTypeLike = jnp.float32
    prefix_dtype: jax.typing.DTypeLike = jnp.float32

    def inputs(self, batch: Batch) -> Any:
        """Returns the features of a batch, or its normalized images or other inputs.

        They are an array, or a dictionary of arrays.
        """
        if self.start is None:
            return model_inputs(self.preprocessing, batch)
        return decode(batch["features"], batch.get("scale"))

    def __call__(self, arrays: Arrays, x: Any, rngs: nnx.Rngs | None = None) -> tuple[jax.Array, Arrays]:
        """Returns the logits `(batch, classes)` in float32, and the updated running statistics."""
        start = self.start
        later = merge(self.graphdef, arrays).backbone.gathered if shards_blocks() else ()
        if self.prefix is not None:
            x, start = self._through_prefix(arrays, x, later), self.prefix
        model = merge(self.graphdef, gather(arrays, dtypes(arrays, self.dtype), later=later))
        model.backbone.remat, model.backbone.scan_layers = self.remat, self.scan_layers
        logits = model(cast_floats(x, self.dtype), start=start, rngs=rngs)
        return logits.astype(jnp.float32), split(model)[2]

    def _through_prefix(self, arrays: Arrays, x: Any, later: tuple[str, ...]) -> Any:
        """Returns the features at the end of the prefix."""
        arrays = gather(arrays, dtypes(arrays, self.prefix_dtype), later=later)

        def frozen(x: Any) -> Any:
            backbone = merge(self.graphdef, arrays).backbone
            backbone.scan_layers = self.scan_layers
            return backbone(x, start=self.start, stop=self.prefix)

        return in_slices(frozen, cast_floats(x, self.prefix_dtype))
