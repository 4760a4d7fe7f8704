"""The split of any JAX function at the boundary between its frozen and its trainable part."""

from transfer_jax.freezing.function_split.block_depth import blocks_by_depth
from transfer_jax.freezing.function_split.divided_layers import divide_layers
from transfer_jax.freezing.function_split.feature import Cost, Feature
from transfer_jax.freezing.function_split.split import Split, split_frozen

__all__ = [
    "Cost",
    "Feature",
    "Split",
    "blocks_by_depth",
    "divide_layers",
    "split_frozen",
]
