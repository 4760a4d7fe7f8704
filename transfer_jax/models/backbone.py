"""A backbone of named blocks, and the classifier made of a backbone and a head."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.models.adapters.adapter import Adapter
from transfer_jax.models.block_scan import equal_runs, scan_blocks
from transfer_jax.models.gathered_block import gathered_block
from transfer_jax.models.remat import rematerialized
from transfer_jax.models.remat_names import Remat
from transfer_jax.nn import batch_shard
from transfer_jax.nn.layers import Dropout, Linear

PRE_LOGITS = "pre_logits"
"""The name of the last block of every backbone. Its output is the pooled features that a head reads."""


class Backbone(nnx.Module):
    """The pretrained network without its classifier: an ordered sequence of named blocks.

    The last block is `pre_logits`, the pooling, which has no parameters. A *boundary* is the name of a block.
    The features at a boundary are the output of that block.

    Args:
        blocks: Blocks by name, the block next to the input first. Each is called as `block(x, rngs=rngs)`.
        features: Number of channels of the pooled output.

    Attributes:
        block_names: Names of the blocks, in order.
        features: Number of channels of the pooled output.
        taps: Whether the pooled output is made of the outputs of all blocks; see `tap`.
        remat: Activations inside a block that the backward pass recomputes instead of storing them; see
            `models.remat`.
        scan_layers: Whether runs of equal blocks are a scan, which is traced and compiled once for each run;
            see `models.block_scan`. Not with `taps`.
        adapters: The adapters of the network; see `models.adapters`.
    """

    adapters: tuple[Adapter, ...] = ()

    def __init__(self, blocks: Mapping[str, nnx.Module], features: int) -> None:
        self.block_names = tuple(blocks)
        self.features = features
        self.taps = False
        self.remat: Remat = "none"
        self.scan_layers = False
        for name, block in blocks.items():
            setattr(self, name, block)

    def span(self, start: str | None, stop: str | None) -> tuple[str, ...]:
        """Returns the names of the blocks after `start` up to and including `stop`.

        Args:
            start: Name of a block; None starts at the first block.
            stop: Name of a block; None stops at the last block.

        Raises:
            ValueError: If a name is not a block of this backbone, or `stop` comes before `start`.
        """
        first = 0 if start is None else self._position(start) + 1
        last = len(self.block_names) if stop is None else self._position(stop) + 1
        if last < first:
            raise ValueError(f"stop block {stop!r} comes before start block {start!r}")
        return self.block_names[first:last]

    def __call__(
        self, x: jax.Array, *, start: str | None = None, stop: str | None = None, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Runs the blocks after `start` up to and including `stop`.

        Args:
            x: Normalized images `(batch, height, width, 3)`, or the features at `start`.
            start: Boundary of the features `x`; None for images.
            stop: Boundary to stop at; None for the pooled features.
            rngs: Source of dropout masks; needed only if a block is in training mode.

        Returns:
            The features at `stop`; `(batch, features)` at the last block.

        Raises:
            ValueError: If a name is not a block, `stop` comes before `start`, or a backbone with `taps` runs
                from a boundary to its last block.
        """
        names, tapped = self.span(start, stop), []
        if self.taps and start is not None and names and names[-1] == self.block_names[-1]:
            raise ValueError(
                f"features at {start!r} lack the outputs of the blocks before it, which taps need; "
                "start at the images"
            )
        if self.scan_layers and not self.taps:
            return self._scan(names, x, rngs)
        for name in names:
            x = self._run_of(name)(getattr(self, name), x, rngs)
            tapped += [_tapped(x)] if self.taps else []
        return jnp.concatenate(tapped, -1) if tapped and names[-1] == self.block_names[-1] else x

    def _scan(self, names: tuple[str, ...], x: Any, rngs: nnx.Rngs | None) -> Any:
        """Runs blocks, each run of equal ones under a scan."""
        blocks, position = [getattr(self, name) for name in names], 0
        for length in equal_runs(blocks):
            run, part = self._run_of(names[position]), blocks[position : position + length]
            x = run(part[0], x, rngs) if length == 1 else scan_blocks(part, x, rngs, run)
            position += length
        return x

    def _run_of(self, name: str) -> Callable[[nnx.Module, Any, Any], Any]:
        """Returns the function `(block, x, rngs)` that runs a block."""
        if batch_shard.shards_blocks():
            return gathered_block(f"backbone/{name}", remat=self.remat)
        return rematerialized(_run, self.remat)

    @property
    def gathered(self) -> tuple[str, ...]:
        """The prefixes of the paths of arrays that blocks gather when they run, if arrays are sharded."""
        return tuple(f"backbone/{name}/" for name in self.block_names)

    def tap(self, image_size: int, channels: int) -> None:
        """Makes the pooled output a concatenation of the outputs of all blocks.

        The output of each block is averaged over all pixels or tokens, and scaled to unit length.

        Args:
            image_size: Side of the images in pixels; the number of features is computed for it.
            channels: Number of channels of the images.
        """
        self.taps = True
        graphdef, state = nnx.split(self)

        def features(state: nnx.State, images: jax.Array) -> jax.Array:
            backbone = nnx.merge(graphdef, state)
            backbone.eval()
            return backbone(images)

        images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
        self.features = jax.eval_shape(features, state, images).shape[-1]

    @property
    def inputs(self) -> Mapping[str, jax.ShapeDtypeStruct] | None:
        """Shapes of a batch of inputs that are not images, by name; None for images."""
        return None

    def program_hashes(self, boundary: str) -> dict[str, str]:
        """Returns hashes of the operations up to a boundary, if they are not those of this package.

        Args:
            boundary: Name of a block.

        Returns:
            Hashes by name; empty for the networks of this package, whose operations their name determines.
        """
        del boundary
        return {}

    def activations(self, x: jax.Array, start: str | None, names: Iterable[str]) -> dict[str, jax.Array]:
        """Returns the features at the end of some blocks, in one pass.

        Args:
            x: Normalized images, or the features at `start`.
            start: Boundary of the features `x`; None for images.
            names: Names of the blocks; those below `start` are left out.
        """
        wanted, found = frozenset(names), {}
        for name in self.span(start, None):
            x = getattr(self, name)(x)
            if name in wanted:
                found[name] = x
        return found

    def set_training(self, blocks: Iterable[str], norm: str) -> None:
        """Sets some blocks to training mode, and all others to inference mode.

        Args:
            blocks: Names of the blocks.
            norm: `train` normalizes the named blocks by the batch and updates their running statistics;
                `frozen` normalizes all blocks by their running statistics.
        """
        self.eval()
        for name in blocks:
            block = getattr(self, name)
            block.train()
            if norm == "frozen":
                block.set_attributes(nnx.BatchNorm, use_running_average=True, raise_if_not_found=False)

    def startable(self, boundary: str) -> tuple[str, ...]:
        """Returns the lower boundaries from which the features at a boundary can be computed."""
        return self.span(None, boundary)[:-1]

    def _position(self, name: str) -> int:
        if name not in self.block_names:
            near = difflib.get_close_matches(name, self.block_names, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "."
            raise ValueError(f"no block {name!r}{hint} The blocks are {', '.join(self.block_names)}")
        return self.block_names.index(name)


def _run(block: nnx.Module, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
    return block(x, rngs=rngs)


def _tapped(x: jax.Array) -> jax.Array:
    """Returns the mean of `(batch, …, channels)` over all pixels or tokens, scaled to unit length."""
    pooled = x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1)))
    length = jnp.linalg.norm(pooled, axis=-1, keepdims=True)
    return (pooled / jnp.maximum(length, 1e-12)).astype(x.dtype)


class Head(nnx.Module):
    """A head: dropout, optional hidden layers, and a linear classifier on pooled features.

    It maps `(batch, features)` to logits `(batch, num_classes)`.

    Args:
        features: Number of channels of the pooled features.
        num_classes: Number of classes.
        hidden: Widths of hidden layers between the features and the classifier, each followed by a ReLU.
        dropout: Fraction of its inputs that each layer drops in training mode.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        *,
        hidden: tuple[int, ...] = (),
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        widths = (features, *hidden)
        self.hidden = nnx.List([Linear(a, b, rngs=rngs) for a, b in zip(widths, hidden, strict=False)])
        self.classifier = Linear(widths[-1], num_classes, rngs=rngs)
        self.dropout = Dropout(dropout)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        for layer in self.hidden:
            x = jax.nn.relu(layer(self.dropout(x, rngs=rngs)))
        return self.classifier(self.dropout(x, rngs=rngs))


class Classifier(nnx.Module):
    """A classifier of images: a backbone and a head.

    Args:
        backbone: Pretrained network.
        head: Head that maps the pooled features to logits.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        self.backbone = backbone
        self.head = head

    def __call__(self, x: jax.Array, *, start: str | None = None, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits `(batch, classes)`.

        Args:
            x: Normalized images `(batch, height, width, 3)`, or the features at `start`.
            start: Boundary of the features `x`; None for images.
            rngs: Source of dropout masks; needed only if a block or the head is in training mode.
        """
        return self.head(self.backbone(x, start=start, rngs=rngs), rngs=rngs)
