"""Settings of the augmentation of training images."""

import dataclasses

from transfer_jax.fields import convert_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The random augmentation of training images. The operations are applied in the order of the fields.

    Example:
        >>> Augmentation()  # random crops and horizontal flips
        >>> Augmentation(crop_scale=None, flip_vertical=True, rotate90=True)  # the symmetries of a square

    Attributes:
        crop_scale: Range of the area of the random crop, as a fraction of the image's area (Szegedy et al.
            2015); None uses the central crop of evaluation.
        crop_ratio: Range of the random crop's width / height.
        flip_horizontal: True flips left and right with a probability of 0.5.
        flip_vertical: True flips top and bottom with a probability of 0.5.
        rotate90: True rotates by 0, 90, 180 or 270 degrees; with both flips, the 8 symmetries of a square.
        color_jitter: Strength s in 0..1 of brightness, contrast and saturation: factors from 1 - s to 1 + s;
            0 is off.
        randaugment_ops: Number of RandAugment operations (Cubuk et al. 2019); 0 is off.
        randaugment_magnitude: Strength of the RandAugment operations, 0..30.
        mixup: Parameter of the Beta distribution of mixup (Zhang et al. 2017); 0 is off. Mixup and CutMix mix
            the images of a batch; the training step applies them.
        cutmix: Parameter of the Beta distribution of CutMix (Yun et al. 2019); 0 is off.

    Raises:
        ValueError: If a value is out of its range. The message names the field, the range and the value.
    """

    crop_scale: tuple[float, float] | None = (0.35, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_horizontal: bool = True
    flip_vertical: bool = False
    rotate90: bool = False
    color_jitter: float = 0.0
    randaugment_ops: int = 0
    randaugment_magnitude: float = 9.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        convert_fields(self, Augmentation)
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(
                f"crop_scale must be None or (low, high) with 0 < low <= high <= 1, got {self.crop_scale}"
            )
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio must be (low, high) with 0 < low <= high, got {self.crop_ratio}")
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"color_jitter must be in 0..1, got {self.color_jitter}")
        if self.randaugment_ops < 0:
            raise ValueError(f"randaugment_ops must be 0 or more, got {self.randaugment_ops}")
        if not 0 <= self.randaugment_magnitude <= 30:
            raise ValueError(f"randaugment_magnitude must be in 0..30, got {self.randaugment_magnitude}")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 (off) or a positive number, got {getattr(self, name)}")
