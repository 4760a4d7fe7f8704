"""Feature extraction: the frozen base runs once over the solar cells, and a head trains on its features.

transfer-jax train elpv_feature_extraction
"""

from transfer_jax import TrainConfig, feature_extraction

config = TrainConfig(
    images="elpv",
    model="efficientnet_lite0",
    crop_fraction=1.0,
    schedule=feature_extraction(epochs=60, learning_rate=3e-3),
)
