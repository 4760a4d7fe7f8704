"""Transforms of an RGB image of any size to the square input of the network, for evaluation and training."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from transfer_jax.data.augmentation import Augmentation
from transfer_jax.data.decode import Box, to_rgb_array
from transfer_jax.data.randaugment import randaugment
from transfer_jax.data.source_image import SourceImage

if TYPE_CHECKING:
    from transfer_jax.models.preprocessing import Preprocessing

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_CROP_ATTEMPTS = 10
Source = np.ndarray | Image.Image | SourceImage
"""An image of any size."""


def eval_transform(image: Source, preprocessing: "Preprocessing") -> np.ndarray:
    """Crops the central square and resizes it, in one step with antialiasing.

    Args:
        image: uint8 RGB `(height, width, 3)`, a Pillow image of mode L or RGB, or a `SourceImage`.
        preprocessing: Size of the result, fraction of the shorter side to keep, and interpolation.

    Returns:
        uint8 RGB `(image_size, image_size, 3)`.
    """
    image = _opened(image)
    return to_rgb_array(
        _crop_and_resize(image, _central_box(image, preprocessing.crop_fraction), preprocessing)
    )


def train_transform(
    image: Source,
    preprocessing: "Preprocessing",
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> np.ndarray:
    """Crops a random part of an image, resizes it, and augments it.

    Args:
        image: As for `eval_transform`.
        preprocessing: As for `eval_transform`.
        augmentation: The augmentation. The training step applies its `mixup` and `cutmix`.
        rng: Random generator; the same state gives the same pixels.

    Returns:
        uint8 RGB `(image_size, image_size, 3)`.
    """
    source = _opened(image)
    if augmentation.crop_scale is None:
        box = _central_box(source, preprocessing.crop_fraction)
    else:
        box = _random_box(source, augmentation.crop_scale, augmentation.crop_ratio, rng)
    image = _crop_and_resize(source, box, preprocessing)
    if augmentation.flip_horizontal and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.flip_vertical and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if augmentation.rotate90 and (turns := int(rng.integers(4))):
        turn = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
        image = image.transpose(turn[turns - 1])
    if augmentation.color_jitter or augmentation.randaugment_ops:
        image = image.convert("RGB")
    if augmentation.color_jitter:
        image = _color_jitter(image, augmentation.color_jitter, rng)
    if augmentation.randaugment_ops:
        red, green, blue = (round(value) for value in preprocessing.mean)
        image = randaugment(
            image, augmentation.randaugment_ops, augmentation.randaugment_magnitude, rng, (red, green, blue)
        )
    return to_rgb_array(image)


def _opened(image: Source) -> Image.Image | SourceImage:
    return Image.fromarray(image) if isinstance(image, np.ndarray) else image


def _crop_and_resize(
    image: Image.Image | SourceImage, box: Box, preprocessing: "Preprocessing"
) -> Image.Image:
    size = (preprocessing.image_size, preprocessing.image_size)
    resample = _FILTERS[preprocessing.interpolation]
    if isinstance(image, SourceImage):
        return image.crop(box, size, resample)
    return image.resize(size, resample, box=box)


def _central_box(image: Image.Image | SourceImage, fraction: float) -> Box:
    width, height = image.size
    side = fraction * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _random_box(
    image: Image.Image | SourceImage,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """Returns a box of random area, aspect ratio and position, or the largest central one if none fits."""
    width, height = image.size
    for _ in range(_CROP_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        box_width, box_height = float(np.sqrt(area * aspect)), float(np.sqrt(area / aspect))
        if box_width <= width and box_height <= height:
            left, top = rng.uniform(0, width - box_width), rng.uniform(0, height - box_height)
            return left, top, left + box_width, top + box_height
    aspect = min(max(width / height, ratio[0]), ratio[1])
    box_width, box_height = min(width, height * aspect), min(height, width / aspect)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def _color_jitter(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Changes brightness, contrast and saturation in random order."""
    for kind in rng.permutation([0, 1, 2]):
        enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
        image = enhance(image).enhance(rng.uniform(1 - strength, 1 + strength))
    return image
