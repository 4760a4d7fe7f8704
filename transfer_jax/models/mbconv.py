"""The inverted residual of mobile networks, which MobileNet and EfficientNet are made of.

Sources: Sandler et al. 2018, arXiv:1801.04381; Hu et al. 2017, arXiv:1709.01507 (squeeze and excitation);
Gupta and Tan 2019, "EfficientNet-EdgeTPU" (fused: a full convolution for expansion and depthwise one).
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from transfer_jax.nn.activations import Activation, silu
from transfer_jax.nn.layers import Conv, ConvNorm, DropPath


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """What all blocks of a network have in common.

    Attributes:
        activation: Behind the expansion and the depthwise convolution.
        gate: Of squeeze and excitation.
        squeeze: The activation inside of it.
        epsilon: Of the normalizations.
        same: Whether a stride pads as TensorFlow's `SAME` does, else evenly.
    """

    activation: Activation
    gate: Activation = jax.nn.sigmoid
    squeeze: Activation = silu
    epsilon: float = 1e-5
    same: bool = False

    def conv(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int = 1,
        *,
        strides: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
        rngs: nnx.Rngs,
    ) -> ConvNorm:
        """A convolution and normalization in this style."""
        return ConvNorm(
            in_features,
            out_features,
            kernel_size,
            strides=strides,
            padding="SAME" if self.same else kernel_size // 2,
            groups=groups,
            epsilon=self.epsilon,
            activation=activation,
            rngs=rngs,
        )


class SqueezeExcite(nnx.Module):
    """Weighs the channels by what the whole image holds."""

    def __init__(self, features: int, squeezed: int, style: Style, rngs: nnx.Rngs) -> None:
        self.reduce = Conv(features, squeezed, use_bias=True, rngs=rngs)
        self.expand = Conv(squeezed, features, use_bias=True, rngs=rngs)
        self.squeeze, self.gate = style.squeeze, style.gate

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = x.mean(axis=(1, 2), keepdims=True)
        return x * self.gate(self.expand(self.squeeze(self.reduce(mean))))


class MBConv(nnx.Module):
    """Expand, depthwise, squeeze and excite, project; and the input added where shapes agree.

    Args:
        in_features: Channels of the input.
        out_features: Channels of the output.
        kernel_size: Side of the depthwise kernel, in pixels.
        strides: Its step.
        wide: Channels between; those of the input leave the expansion out.
        squeezed: Channels of squeeze and excitation; 0 leaves it out.
        fused: Whether expansion and depthwise convolution are one full convolution; where nothing is
            expanded, it is all there is.
        style: The network's.
        drop_path: Rate of stochastic depth.
        rngs: Source of the initial parameters.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        strides: int,
        wide: int,
        *,
        squeezed: int = 0,
        fused: bool = False,
        style: Style,
        drop_path: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        expands = wide != in_features
        layers = []
        if fused:
            between = wide if expands else out_features
            self.fused = style.conv(
                in_features, between, kernel_size, strides=strides, activation=style.activation, rngs=rngs
            )
            layers.append("fused")
        else:
            if expands:
                self.expand = style.conv(in_features, wide, activation=style.activation, rngs=rngs)
                layers.append("expand")
            self.depthwise = style.conv(
                wide,
                wide,
                kernel_size,
                strides=strides,
                groups=wide,
                activation=style.activation,
                rngs=rngs,
            )
            layers.append("depthwise")
        if squeezed:
            self.se = SqueezeExcite(wide, squeezed, style, rngs)
            layers.append("se")
        if expands or not fused:
            self.project = style.conv(wide, out_features, rngs=rngs)
            layers.append("project")
        self.layers = tuple(layers)
        self.residual = strides == 1 and in_features == out_features
        self.drop_path = DropPath(drop_path)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        y = x
        for layer in self.layers:
            y = getattr(self, layer)(y)
        return x + self.drop_path(y, rngs=rngs) if self.residual else y


def round_channels(channels: float) -> int:
    """Rounds to a multiple of 8, never down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def keras_order(shape: Any, path: tuple[str, ...]) -> tuple[int, ...]:
    """The `family.LayerOrder` of networks of such blocks: as the layers run."""
    del shape
    return tuple(map(_LAYER_ORDER.index, path[2:]))


_LAYER_ORDER = ("fused", "reduce", "expand", "depthwise", "se", "project", "dense", "conv", "norm")


def timm_layer(layers: tuple[str, ...], part: str, layer: str) -> str:
    """Timm's name of a layer of a block, from the layers that the block has."""
    if part == "se":
        return f"se.conv_{layer}"
    convolutions = [name for name in layers if name != "se"]
    if layer == "norm":
        return f"bn{convolutions.index(part) + 1}"
    match convolutions:
        case ["fused"]:
            return "conv"
        case ["fused", "project"]:
            return {"fused": "conv_exp", "project": "conv_pwl"}[part]
        case ["depthwise", "project"]:
            return {"depthwise": "conv_dw", "project": "conv_pw"}[part]
    return {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}[part]


def torchvision_layer(layers: tuple[str, ...], part: str, layer: str) -> str:
    """Torchvision's name of a layer of a block of EfficientNet or MobileNetV3."""
    index = layers.index(part)
    if part == "se":
        return f"block.{index}.fc{1 if layer == 'reduce' else 2}"
    return f"block.{index}.{0 if layer == 'conv' else 1}"
