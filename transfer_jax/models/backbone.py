"""A backbone of named blocks, and the classifier made of a backbone and a head."""

import difflib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.nn.layers import Dropout, Linear

PRE_LOGITS = "pre_logits"
"""The name of the last block of every backbone: the pooled features that a head reads."""


class Backbone(nnx.Module):
    """The pretrained network without its classifier: an ordered sequence of named blocks.

    The last block is `pre_logits`, the pooling; it has no parameters. A *boundary* is the name of a block:
    the activations behind it are the features there.

    Args:
        blocks: The blocks by name, input side first. Each is called as `block(x, rngs=rngs)`.
        features: Channels of the pooled output.

    Attributes:
        taps: Whether the features behind the last block are the outputs of all blocks; see `tap`.
        remat: Whether backward computes what is inside a block anew, instead of keeping it from forward.
    """

    def __init__(self, blocks: Mapping[str, nnx.Module], features: int) -> None:
        self.block_names = tuple(blocks)
        self.features = features
        self.taps = False
        self.remat = False
        for name, block in blocks.items():
            setattr(self, name, block)

    def span(self, start: str | None, stop: str | None) -> tuple[str, ...]:
        """The names of the blocks after `start` up to and including `stop`.

        Raises:
            ValueError: If a name is no block of this backbone, or `stop` lies before `start`.
        """
        first = 0 if start is None else self._position(start) + 1
        last = len(self.block_names) if stop is None else self._position(stop) + 1
        if last < first:
            raise ValueError(f"stop block {stop!r} lies before start block {start!r}")
        return self.block_names[first:last]

    def __call__(
        self, x: jax.Array, *, start: str | None = None, stop: str | None = None, rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Runs the blocks after `start` up to and including `stop`.

        Args:
            x: Normalized images `(batch, height, width, 3)`, or the features at `start`.
            start: The boundary that `x` was taken at; None for images.
            stop: The boundary to stop at; None for the pooled features `(batch, features)`.
            rngs: Source of dropout masks; needed only while some block trains.
        """
        names, tapped = self.span(start, stop), []
        if self.taps and start is not None and names and names[-1] == self.block_names[-1]:
            raise ValueError(f"the features at {start!r} have not the outputs of the blocks up to there")
        run = nnx.remat(_run) if self.remat else _run
        for name in names:
            x = run(getattr(self, name), x, rngs)
            tapped += [_tapped(x)] if self.taps else []
        return jnp.concatenate(tapped, -1) if tapped and names[-1] == self.block_names[-1] else x

    def tap(self, image_size: int, channels: int) -> None:
        """From now on its features are the outputs of all blocks, each pooled and scaled to unit length.

        Args:
            image_size: Side of the images in pixels, to count the features for.
            channels: Channels of the images.
        """
        self.taps = True
        graphdef, state = nnx.split(self)

        def features(state: nnx.State, images: jax.Array) -> jax.Array:
            backbone = nnx.merge(graphdef, state)
            backbone.eval()
            return backbone(images)

        images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
        self.features = jax.eval_shape(features, state, images).shape[-1]

    def _position(self, name: str) -> int:
        if name not in self.block_names:
            near = difflib.get_close_matches(name, self.block_names, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "."
            raise ValueError(f"no block {name!r}{hint} The blocks are {', '.join(self.block_names)}")
        return self.block_names.index(name)


def _run(block: nnx.Module, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
    return block(x, rngs=rngs)


def _tapped(x: jax.Array) -> jax.Array:
    """The mean over all places of `(batch, …, channels)`, scaled to unit length."""
    pooled = x.astype(jnp.float32).mean(tuple(range(1, x.ndim - 1)))
    length = jnp.linalg.norm(pooled, axis=-1, keepdims=True)
    return (pooled / jnp.maximum(length, 1e-12)).astype(x.dtype)


class Head(nnx.Module):
    """Dropout, optional hidden layers, and the new classifier on pooled features.

    Args:
        features: Channels of the pooled features.
        num_classes: Number of classes.
        hidden: Widths of hidden layers between the features and the classifier, each followed by a ReLU.
        dropout: Share of its inputs that each layer drops while it trains.
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
    """A backbone and a head.

    Args:
        backbone: The pretrained network.
        head: What turns its pooled features into logits.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        self.backbone = backbone
        self.head = head

    def __call__(self, x: jax.Array, *, start: str | None = None, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Logits `(batch, classes)` from images, or from the features at the boundary `start`."""
        return self.head(self.backbone(x, start=start, rngs=rngs), rngs=rngs)
