"""The fields of a config about images."""

import dataclasses
import os
from typing import Literal

from transfer_jax.config.checks import check_choices, check_ranges
from transfer_jax.data.augmentation import Augmentation
from transfer_jax.fields import convert_fields

OnBadImage = Literal["error", "skip"]
Views = Literal["none", "flip", "dihedral"]
"""Views of an image whose predictions are averaged: the image alone; with its mirror image; all eight flips
and quarter turns of a square.
"""
TaskChoice = Literal["auto", "single_label", "multi_label", "regression", "ordinal"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images, their split, and how they are cropped and augmented.

    Attributes:
        images: The source of the images: a folder with one subfolder for each class; `csv:FILE`, a table of
            files, where `csv:FILE?label=a,b` chooses columns; `tfds:NAME`; shards as `records:PATH`,
            `wds:PATH` or `parquet:PATH`; or `elpv`, `elpv:likely`, `elpv:sure`, `elpv:confidence`,
            `elpv:labels` and `elpv:probability`. Paths may be in object storage, such as `gs://…`.
        eval_images: The source of the validation images, in one of these forms, such as
            `tfds:imagenet2012:validation`. All of `images` but its test images is then trained on. Classes
            are matched by name. None takes validation images of `images`.
        task: The kind of targets: `single_label` (one class for each image), `multi_label` (any number of
            labels), `regression` (one or several numbers) or `ordinal` (ordered classes, such as grades).
            `auto` takes that of the images: the type of a tfds feature or of arrays, and `single_label` for
            folders and tables.
        data_dir: Folder of prepared datasets; None takes the default.
        on_bad_image: `error` stops at an image that cannot be decoded; `skip` leaves such images out and
            lists them in the workdir.
        keep_together: Whether near duplicates stay on the same side of the split. All images are scanned
            first.
        val_fraction: Fraction of the images in the validation set, stratified by class. The validation images
            choose the epoch that is kept. It has no effect if the source has its own validation images, such
            as a folder with `train` and `val`.
        test_fraction: Fraction of the images in the test set, stratified by class. The test images choose
            nothing, and are scored once, at the end of the run. 0 makes no test set. It has no effect if the
            source has its own test images, such as a folder with `train` and `test`.
        split_seed: Seed of the split; None takes `seed`.
        images_per_class: Largest number of training images of each class, drawn at random with the split.
            Smaller subsets are contained in larger ones, and the validation images stay the same. None takes
            all images.
        image_size: Height and width of the network's input in pixels; None takes those of the weights.
        crop_fraction: Fraction of an image's shorter side that is kept in validation and prediction; 1.0
            keeps the whole of a square image. None takes that of the weights.
        augmentation: How training images are varied in the phases that augment.
    """

    images: str
    eval_images: str | None = None
    task: TaskChoice = "auto"
    data_dir: str | None = None
    on_bad_image: OnBadImage = "error"
    keep_together: bool = False
    val_fraction: float = 0.25
    test_fraction: float = 0.0
    split_seed: int | None = None
    images_per_class: int | None = None
    image_size: int | None = None
    crop_fraction: float | None = None
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if not isinstance(self.images, str | os.PathLike):
            raise ValueError(
                "images must be a string or a path such as 'photos' or 'csv:FILE', "
                f"got {type(self.images).__name__}; a dataset in memory is given to fit(..., dataset=...)"
            )
        convert_fields(self, DataConfig)
        if not isinstance(self.eval_images, str | None):
            raise ValueError(f"eval_images must be a string or a path, got {type(self.eval_images).__name__}")
        if not isinstance(self.augmentation, Augmentation):
            raise ValueError(f"augmentation must be an Augmentation, got {self.augmentation!r}")
        check_choices(self, on_bad_image=OnBadImage, task=TaskChoice)
        check_ranges(
            self,
            val_fraction="in (0, 1)",
            test_fraction="in [0, 1)",
            split_seed="at least 0",
            images_per_class="at least 1",
            image_size="at least 1",
            crop_fraction="in (0, 1]",
        )

        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction={self.val_fraction:g} and test_fraction={self.test_fraction:g} leave no "
                "training images; their sum must be below 1"
            )

    @property
    def eval_fraction(self) -> float:
        """The former name of `val_fraction`."""
        return self.val_fraction

    @property
    def mixes(self) -> bool:
        """True if training steps mix the images of a batch, by mixup or CutMix."""
        return self.augmentation.mixup > 0 or self.augmentation.cutmix > 0
