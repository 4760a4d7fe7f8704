"""The inverted residual block of MobileNet and EfficientNet.

Sources: Sandler et al. 2018, arXiv:1801.04381; Hu et al. 2017, arXiv:1709.01507 (squeeze and excitation);
Gupta and Tan 2019, "EfficientNet-EdgeTPU" (fused: one full convolution instead of the expansion and the
depthwise convolution).
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from transfer_jax.nn.activations import Activation, silu
from transfer_jax.nn.antialiasing import AntialiasedConvNorm
from transfer_jax.nn.layers import Conv, ConvNorm, DropPath


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """The properties that all blocks of a network share.

    Attributes:
        activation: Activation after the expansion and after the depthwise convolution.
        gate: Activation of the channel weights in squeeze-and-excitation.
        squeeze: Activation of the inner layer in squeeze-and-excitation.
        epsilon: Value added to the variance by normalizations.
        same: Whether to pad as TensorFlow's `SAME` does; otherwise both sides equally.
        downsampling: Method of halving the image: `stride` of the convolution, or a filter after it, one of
            `antialiasing.FILTERS`.
    """

    activation: Activation
    gate: Activation = jax.nn.sigmoid
    squeeze: Activation = silu
    epsilon: float = 1e-5
    same: bool = False
    downsampling: str = "stride"

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
        """Returns a convolution with normalization in this style; see `ConvNorm` for the arguments."""
        options = {
            "padding": "SAME" if self.same else kernel_size // 2,
            "groups": groups,
            "epsilon": self.epsilon,
            "activation": activation,
            "rngs": rngs,
        }
        if self.downsampling != "stride" and strides == 2:
            return AntialiasedConvNorm(
                in_features, out_features, kernel_size, filter_name=self.downsampling, **options
            )
        return ConvNorm(in_features, out_features, kernel_size, strides=strides, **options)


class SqueezeExcite(nnx.Module):
    """Squeeze-and-excitation: weights of the channels, computed from the image's mean.

    It maps `(batch, height, width, features)` to the same shape.
    """

    def __init__(self, features: int, squeezed: int, style: Style, rngs: nnx.Rngs) -> None:
        self.reduce = Conv(features, squeezed, use_bias=True, rngs=rngs)
        self.expand = Conv(squeezed, features, use_bias=True, rngs=rngs)
        self.squeeze, self.gate = style.squeeze, style.gate

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = x.mean(axis=(1, 2), keepdims=True)
        return x * self.gate(self.expand(self.squeeze(self.reduce(mean))))


class MBConv(nnx.Module):
    """An inverted residual block: expansion, depthwise convolution, squeeze-and-excitation, projection.

    It maps `(batch, height, width, in_features)` to `(batch, height / strides, width / strides,
    out_features)`. The input is added to the output if their shapes are equal.

    Args:
        in_features: Number of channels of the input.
        out_features: Number of channels of the output.
        kernel_size: Side of the depthwise kernel, in pixels.
        strides: Stride of the depthwise convolution.
        wide: Number of channels after the expansion. If it equals `in_features`, there is no expansion.
        squeezed: Number of inner channels of squeeze-and-excitation; 0 leaves it out.
        fused: Whether one full convolution replaces the expansion and the depthwise convolution. Without
            expansion, it is the only layer.
        style: Style of the network.
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
    """Rounds a number of channels to a multiple of 8, and down by at most a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def keras_order(shape: Any, path: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the sort key of a layer: the order in which the layers run. A `family.LayerOrder`."""
    del shape
    return tuple(map(_LAYER_ORDER.index, path[2:]))


_LAYER_ORDER = ("fused", "reduce", "expand", "depthwise", "se", "project", "dense", "conv", "norm")


def timm_layer(layers: tuple[str, ...], part: str, layer: str) -> str:
    """Returns timm's name of a layer of a block.

    Args:
        layers: Names of the block's layers, in order.
        part: Name of one of them.
        layer: Name of a layer inside it.
    """
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
    """Returns torchvision's name of a layer of EfficientNet or MobileNetV3; see `timm_layer`."""
    index = layers.index(part)
    if part == "se":
        return f"block.{index}.fc{1 if layer == 'reduce' else 2}"
    return f"block.{index}.{0 if layer == 'conv' else 1}"
