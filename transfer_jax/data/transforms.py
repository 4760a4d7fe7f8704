"""From an RGB image of any size to the square the network sees, for evaluation or varied for training."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from transfer_jax.data.augmentation import Augmentation
from transfer_jax.data.decode import pixels_of
from transfer_jax.data.randaugment import randaugment

if TYPE_CHECKING:
    from transfer_jax.models.preprocessing import Preprocessing

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_CROP_ATTEMPTS = 10

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels, not necessarily whole ones


def eval_transform(image: np.ndarray | Image.Image, preprocessing: "Preprocessing") -> np.ndarray:
    """Cuts out the central square and resizes it, in one step and with antialiasing.

    Args:
        image: uint8 RGB `(height, width, 3)`, or a picture of mode L or RGB.
        preprocessing: Gives the size of the result, the share of the shorter side to keep, and the filter.

    Returns:
        uint8 RGB `(image_size, image_size, 3)`.
    """
    picture = _picture(image)
    return pixels_of(_resized(picture, _central_box(picture, preprocessing.crop_fraction), preprocessing))


def train_transform(
    image: np.ndarray | Image.Image,
    preprocessing: "Preprocessing",
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> np.ndarray:
    """Cuts out a random part, resizes it, and varies it as the augmentation says.

    Args:
        image: As for `eval_transform`.
        preprocessing: As for `eval_transform`.
        augmentation: What to vary; `mixup` and `cutmix` are left to the training step.
        rng: Source of all randomness: the same state gives the same pixels.

    Returns:
        uint8 RGB `(image_size, image_size, 3)`.
    """
    picture = _picture(image)
    if augmentation.crop_scale is None:
        box = _central_box(picture, preprocessing.crop_fraction)
    else:
        box = _random_box(picture, augmentation.crop_scale, augmentation.crop_ratio, rng)
    picture = _resized(picture, box, preprocessing)
    if augmentation.flip_horizontal and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if augmentation.flip_vertical and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if augmentation.rotate90 and (turns := int(rng.integers(4))):
        turn = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
        picture = picture.transpose(turn[turns - 1])
    if augmentation.color_jitter or augmentation.randaugment_ops:
        picture = picture.convert("RGB")
    if augmentation.color_jitter:
        picture = _color_jitter(picture, augmentation.color_jitter, rng)
    if augmentation.randaugment_ops:
        red, green, blue = (round(value) for value in preprocessing.mean)
        picture = randaugment(
            picture, augmentation.randaugment_ops, augmentation.randaugment_magnitude, rng, (red, green, blue)
        )
    return pixels_of(picture)


def _picture(image: np.ndarray | Image.Image) -> Image.Image:
    return image if isinstance(image, Image.Image) else Image.fromarray(image)


def _resized(picture: Image.Image, box: Box, preprocessing: "Preprocessing") -> Image.Image:
    size = (preprocessing.image_size, preprocessing.image_size)
    return picture.resize(size, _FILTERS[preprocessing.interpolation], box=box)


def _central_box(picture: Image.Image, fraction: float) -> Box:
    width, height = picture.size
    side = fraction * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _random_box(
    picture: Image.Image, scale: tuple[float, float], ratio: tuple[float, float], rng: np.random.Generator
) -> Box:
    """A box of random area, shape and place; if none fits, the largest central one of a permitted shape."""
    width, height = picture.size
    for _ in range(_CROP_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        shape = np.exp(rng.uniform(*np.log(ratio)))
        box_width, box_height = float(np.sqrt(area * shape)), float(np.sqrt(area / shape))
        if box_width <= width and box_height <= height:
            left, top = rng.uniform(0, width - box_width), rng.uniform(0, height - box_height)
            return left, top, left + box_width, top + box_height
    shape = min(max(width / height, ratio[0]), ratio[1])
    box_width, box_height = min(width, height * shape), min(height, width / shape)
    left, top = (width - box_width) / 2, (height - box_height) / 2
    return left, top, left + box_width, top + box_height


def _color_jitter(picture: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation in random order."""
    for kind in rng.permutation([0, 1, 2]):
        enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
        picture = enhance(picture).enhance(rng.uniform(1 - strength, 1 + strength))
    return picture
