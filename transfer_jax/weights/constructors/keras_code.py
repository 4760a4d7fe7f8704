"""The networks of `keras.applications`."""

from typing import Any

from transfer_jax.weights.constructors.constructor import Constructor, Exported, call

_NAMES = {
    **{f"keras_resnet{depth}": f"ResNet{depth}" for depth in (50, 101, 152)},
    **{f"keras_vgg{depth}": f"VGG{depth}" for depth in (16, 19)},
    **{f"keras_densenet{depth}": f"DenseNet{depth}" for depth in (121, 169, 201)},
    "keras_inception_v3": "InceptionV3",
    "keras_xception": "Xception",
    "keras_mobilenet_v2": "MobileNetV2",
    **{f"keras_mobilenet_v2_{alpha:03}": "MobileNetV2" for alpha in (35, 50, 75, 130, 140)},
    "keras_mobilenet_v3_large": "MobileNetV3Large",
    "keras_mobilenet_v3_small": "MobileNetV3Small",
    **{f"tf_efficientnet_b{scale}": f"EfficientNetB{scale}" for scale in range(8)},
    **{
        f"tf_efficientnetv2_{scale}": f"EfficientNetV2{scale.upper()}"
        for scale in ("b0", "b1", "b2", "b3", "s", "m", "l")
    },
    **{f"convnext_{size}": f"ConvNeXt{size.capitalize()}" for size in ("tiny", "small", "base", "large")},
    "convnext_xlarge": "ConvNeXtXLarge",
}
"""The names in `keras.applications`."""


def keras_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in Keras; None if Keras lacks the network.

    EfficientNet B0 to B7 normalizes images inside the network, with the mean and standard deviation in the
    file. Other networks that normalize by constants of their own are created without that.
    """
    kind = _NAMES.get(exported.model)
    if kind is None:
        return None
    inside = exported.model.startswith("tf_efficientnet_")
    constants = kind.startswith(("EfficientNetV2", "MobileNetV3", "ConvNeXt"))
    options: dict[str, Any] = {"include_preprocessing": False} if constants else {}
    if kind == "MobileNetV2":
        options = {"alpha": _width(exported.model)}
    made = call(
        f"keras.applications.{kind}",
        **options,
        weights=None,
        input_shape=(exported.image_size, exported.image_size, 3),
        classes=exported.outputs,
        classifier_activation=None,
    )
    code = f"import keras\n\nmodel = {made}\n{call('model.load_weights', exported.file)}"
    return Constructor(
        code=code, module="keras", runtime="keras", channels_first=False, normalized=not inside
    )


def _width(model: str) -> float:
    """Returns the width multiplier of a MobileNetV2."""
    last = model.rpartition("_")[2]
    return int(last) / 100 if last.isdigit() else 1.0
