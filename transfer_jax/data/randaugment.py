"""RandAugment (Cubuk et al. 2019, https://arxiv.org/abs/1909.13719) with Pillow's operations."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_MAGNITUDE = 30.0

Color = tuple[int, int, int]


def randaugment(
    picture: Image.Image, operations: int, magnitude: float, rng: np.random.Generator, fill: Color
) -> Image.Image:
    """Applies operations drawn at random, with replacement, at one strength.

    Args:
        picture: In mode RGB.
        operations: How many to apply.
        magnitude: Strength from 0 to 30. Signed operations take a random sign.
        rng: Source of all randomness.
        fill: RGB of the pixels that move in from outside.

    Returns:
        A picture of the same size.
    """
    names = list(OPERATIONS)
    for _ in range(operations):
        operation = OPERATIONS[names[rng.integers(len(names))]]
        sign = 1.0 if rng.random() < 0.5 else -1.0
        picture = operation(picture, magnitude / MAX_MAGNITUDE, sign, fill)
    return picture


def _enhance(kind: Callable[[Image.Image], Any]) -> Callable[..., Image.Image]:
    return lambda picture, level, sign, fill: kind(picture).enhance(1 + 0.9 * level * sign)


def _affine(picture: Image.Image, matrix: tuple[float, ...], fill: Color) -> Image.Image:
    """Fills position (x, y) from (a x + b y + c, d x + e y + f)."""
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=fill
    )


def _rotate(picture: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    return picture.rotate(30 * level * sign, resample=Image.Resampling.BILINEAR, fillcolor=fill)


def _shear_x(picture: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    slope = 0.3 * level * sign
    return _affine(picture, (1, slope, -slope * picture.height / 2, 0, 1, 0), fill)


def _shear_y(picture: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    slope = 0.3 * level * sign
    return _affine(picture, (1, 0, 0, slope, 1, -slope * picture.width / 2), fill)


def _translate_x(picture: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    return _affine(picture, (1, 0, 0.45 * level * sign * picture.width, 0, 1, 0), fill)


def _translate_y(picture: Image.Image, level: float, sign: float, fill: Color) -> Image.Image:
    return _affine(picture, (1, 0, 0, 0, 1, 0.45 * level * sign * picture.height), fill)


# Each takes the picture, the strength in 0..1, a sign of +1 or -1, and the fill colour.
OPERATIONS: dict[str, Callable[[Image.Image, float, float, Color], Image.Image]] = {
    "identity": lambda picture, level, sign, fill: picture,
    "autocontrast": lambda picture, level, sign, fill: ImageOps.autocontrast(picture),
    "equalize": lambda picture, level, sign, fill: ImageOps.equalize(picture),
    "rotate": _rotate,
    "posterize": lambda picture, level, sign, fill: ImageOps.posterize(picture, 8 - round(4 * level)),
    "solarize": lambda picture, level, sign, fill: ImageOps.solarize(picture, round(256 * (1 - level))),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
