"""A new head on the frozen base, trained with mirrored images.

transfer-jax train elpv_frozen_base
"""

from transfer_jax import Augmentation, TrainConfig, frozen_base

config = TrainConfig(
    images="elpv",
    model="efficientnet_lite0",
    crop_fraction=1.0,
    schedule=frozen_base(epochs=4, learning_rate=3e-3),
    augmentation=Augmentation(crop_scale=None, flip_vertical=True),
)
