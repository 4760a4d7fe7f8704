"""Configs of ImageNet in object storage on a TPU pod, which the files in `configs/` call."""

from typing import Any, Literal

from transfer_jax.config.train_config import TrainConfig
from transfer_jax.data.augmentation import Augmentation
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.schedule import Schedule

Part = Literal["head", "last", "all"]

LAST_BLOCKS = {
    "vit_base_patch16_224": "from_('blocks.10')",
    "vit_large_patch16_224": "from_('blocks.22')",
    "resnet50": "from_('layer4')",
}
"""The selector of the last blocks of each network."""
_TERABYTE = 1000.0


def imagenet_config(
    images: str,
    model: str,
    part: Part,
    *,
    chips: int,
    images_per_chip: int,
    epochs: int,
    gigabytes: float = _TERABYTE,
    **settings: Any,
) -> TrainConfig:
    """Returns a config that trains a part of a network on ImageNet.

    The images are in a bucket: prepared by tensorflow-datasets, whose folder is `data_dir` (`--data-dir
    gs://…`), or packed by `transfer-jax pack` (`--images gs://…`). Steps compute in bfloat16. The head and
    the last blocks train on cached features, which are in the workdir, also in a bucket; those of the last
    blocks are stored as int8. The whole network trains on random crops.

    Example:
        >>> config = imagenet_config(
        ...     "tfds:imagenet2012", "resnet50", "head", chips=16, images_per_chip=256, epochs=10
        ... )

    Args:
        images: `tfds:NAME`, a folder of packed images, or another source.
        model: The network, one of `LAST_BLOCKS`.
        part: `head` trains the head, `last` also the last blocks, `all` everything.
        chips: Number of chips of the pod.
        images_per_chip: Number of images in a step for each chip.
        epochs: Number of passes over the images.
        gigabytes: Space for cached features in units of 10^9 bytes.
        **settings: Other fields of the config.
    """
    batch = chips * images_per_chip
    phases = {
        "head": Phase(
            name="head",
            train="head",
            epochs=epochs,
            learning_rate=1e-3,
            warmup=0.05,
            weight_decay=1e-4,
            cache="require",
        ),
        "last": Phase(
            name="last blocks",
            train=LAST_BLOCKS[model],
            epochs=epochs,
            learning_rate=1e-4,
            warmup=0.1,
            weight_decay=0.05,
            layer_decay=0.75,
            clip_norm=1.0,
            cache="require",
        ),
        "all": Phase(
            name="everything",
            train="all_()",
            epochs=epochs,
            learning_rate=1e-3 if model == "resnet50" else 1e-4,
            warmup=0.1,
            weight_decay=0.05,
            layer_decay=1.0 if model == "resnet50" else 0.75,
            clip_norm=1.0,
            norm="train" if model == "resnet50" else "frozen",
            augment=True,
            cache="off",
        ),
    }
    chosen = {
        "precision": "bfloat16",
        "strategy": "mesh",
        "val_fraction": 0.01,
        "checkpoint_seconds": 600.0,
        "feature_gigabytes": gigabytes,
        "feature_precision": "int8" if part == "last" else "auto",
        "augmentation": Augmentation(crop_scale=(0.2, 1.0)),
        **settings,
    }
    return TrainConfig(
        images=images, model=model, batch_size=batch, schedule=Schedule((phases[part],)), **chosen
    )
