"""Fine-tuning in five steps: the head on cached features, then also the last five blocks and `top`.

transfer-jax train elpv_five_steps
"""

from transfer_jax import Augmentation, TrainConfig, five_steps

config = TrainConfig(
    images="elpv",
    model="efficientnet_lite0",
    crop_fraction=1.0,
    schedule=five_steps("from_('blocks.11')", head_epochs=60, epochs=14, learning_rate=1e-4, views=4),
    augmentation=Augmentation(crop_scale=None, flip_vertical=True),
)
