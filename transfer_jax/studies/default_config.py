"""The default config of a study."""

import dataclasses

from transfer_jax.config import TrainConfig
from transfer_jax.freezing.recipes import five_steps
from transfer_jax.freezing.schedule import Schedule


def default_config(images: str) -> TrainConfig:
    """Returns the default config of a study, which finishes within half an hour on two cores.

    A step on images of 96 pixels takes a fifth of the work of one on 224. The head trains for 20 epochs on
    features that are computed once, which costs almost nothing. Then the unfrozen blocks train with it for 3
    epochs, which is most of the cost. That phase uses small batches, for more steps, and a low learning rate,
    because so few epochs at a high rate only damage the pretrained weights. There is no augmentation, so
    features can be cached at every boundary, all arms see the same images, and the gap between training and
    validation accuracy shows how much an arm overfits.

    Args:
        images: The source of the images.
    """
    schedule = five_steps("all_()", head_epochs=20, epochs=3, learning_rate=5e-5, views=0)
    plain = tuple(dataclasses.replace(phase, augment=False) for phase in schedule.phases)
    settings = {"image_size": 96, "crop_fraction": 1.0, "batch_size": 16}
    return TrainConfig(images=images, schedule=Schedule(plain), **settings)
