"""The images that a config names: those of `images`, with the validation images of `eval_images`."""

from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset, load_dataset
from transfer_jax.data.joined import with_validation


def config_images(config: TrainConfig, **options: Any) -> ImageDataset:
    """Returns the images of a config; those of `eval_images`, if it is set, are their validation images.

    Args:
        config: The config.
        **options: Options of `load_dataset`, such as `progress`.

    Raises:
        ValueError: As `load_dataset` and `with_validation`.
    """
    options = {"object_gigabytes": config.object_gigabytes, **options}
    dataset = load_dataset(config.images, config.data_dir, task=config.task, **options)
    if config.eval_images is None:
        return dataset
    options = {**options, "task": dataset.task.kind, "least_classes": 1}
    return with_validation(
        dataset, load_dataset(config.eval_images, config.data_dir, **options), config.eval_images
    )
