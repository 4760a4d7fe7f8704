"""RandAugment (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719) with Pillow's operations."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_MAGNITUDE = 30.0
"""The largest strength of operations."""

Color = tuple[int, int, int]
"""Red, green and blue in 0..255."""


def randaugment(
    image: Image.Image, operations: int, magnitude: float, rng: np.random.Generator, fill: Color
) -> Image.Image:
    """Applies random operations, drawn with replacement, of the same strength.

    Args:
        image: A Pillow image in mode RGB.
        operations: Number of operations.
        magnitude: Strength of the operations, 0..30. Signed operations have a random sign.
        rng: Random generator.
        fill: RGB values of pixels from outside the image.

    Returns:
        An image of the same size.
    """
    names = list(OPERATIONS)
    for _ in range(operations):
        operation = OPERATIONS[names[rng.integers(len(names))]]
        sign = 1.0 if rng.random() < 0.5 else -1.0
        image = operation(image, magnitude / MAX_MAGNITUDE, sign, fill)
    return image


def _enhance(kind: Callable[[Image.Image], Any]) -> Callable[..., Image.Image]:
    return lambda image, level, sign, fill: kind(image).enhance(1 + 0.9 * level * sign)


def _affine(image: Image.Image, matrix: tuple[float, ...], fill: Color) -> Image.Image:
    """Moves the pixel at (a x + b y + c, d x + e y + f) to (x, y), for the matrix (a, b, c, d, e, f)."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=fill
    )


def _rotate(image: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    return image.rotate(30 * level * sign, resample=Image.Resampling.BILINEAR, fillcolor=fill)


def _shear_x(image: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    slope = 0.3 * level * sign
    return _affine(image, (1, slope, -slope * image.height / 2, 0, 1, 0), fill)


def _shear_y(image: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    slope = 0.3 * level * sign
    return _affine(image, (1, 0, 0, slope, 1, -slope * image.width / 2), fill)


def _translate_x(image: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    return _affine(image, (1, 0, 0.45 * level * sign * image.width, 0, 1, 0), fill)


def _translate_y(image: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, 0.45 * level * sign * image.height), fill)


OPERATIONS: dict[str, Callable[[Image.Image, float, float, Color], Image.Image]] = {
    "identity": lambda image, level, sign, fill: image,
    "autocontrast": lambda image, level, sign, fill: ImageOps.autocontrast(image),
    "equalize": lambda image, level, sign, fill: ImageOps.equalize(image),
    "rotate": _rotate,
    "posterize": lambda image, level, sign, fill: ImageOps.posterize(image, 8 - round(4 * level)),
    "solarize": lambda image, level, sign, fill: ImageOps.solarize(image, round(256 * (1 - level))),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""Operations by name: functions of an image, the strength in 0..1, the sign (+1 or -1) and the fill."""
