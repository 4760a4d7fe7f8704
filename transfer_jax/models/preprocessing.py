"""The preprocessing that a set of pretrained weights expects."""

import dataclasses

import jax
import jax.numpy as jnp

INTERPOLATIONS = ("bicubic", "bilinear")
CHANNEL_ORDERS = ("rgb", "bgr")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preprocessing of images that a set of pretrained weights was trained with.

    Attributes:
        image_size: Side of the square input of the network, in pixels.
        crop_fraction: Side of the central crop as a fraction of the image's shorter side; 1.0 keeps the
            whole shorter side.
        interpolation: Filter for resizing: `bicubic` or `bilinear`.
        mean: Value subtracted from each RGB channel, on the 0..255 scale.
        std: Value that each RGB channel is divided by, on the 0..255 scale.
        channel_order: `rgb`, or `bgr` for weights that were trained with it, such as Keras's VGG and ResNet.
    """

    image_size: int = 224
    crop_fraction: float = 0.875
    interpolation: str = "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: str = "rgb"

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size must be at least 1 pixel, got {self.image_size}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must be in (0, 1], got {self.crop_fraction}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation must be one of {INTERPOLATIONS}, got {self.interpolation!r}")
        if self.channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order must be one of {CHANNEL_ORDERS}, got {self.channel_order!r}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    def normalize(self, images: jax.Array) -> jax.Array:
        """Converts RGB pixels `(batch, height, width, 3)` in 0..255 to the float32 input of the network."""
        normalized = (images.astype(jnp.float32) - jnp.array(self.mean)) / jnp.array(self.std)
        return normalized[..., ::-1] if self.channel_order == "bgr" else normalized
