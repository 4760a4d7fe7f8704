"""The constructor calls of other libraries: the networks that compute the same as ours, and their options."""

from transfer_jax.models.registry import FAMILIES, family_of, variant_of
from transfer_jax.weights.constructors.constructor import Constructor, Exported
from transfer_jax.weights.constructors.google_code import (
    big_transfer_constructor,
    big_vision_constructor,
    vision_transformer_constructor,
)
from transfer_jax.weights.constructors.keras_code import keras_constructor
from transfer_jax.weights.constructors.lite_code import efficientnet_pytorch_constructor
from transfer_jax.weights.constructors.own_code import (
    onnx_constructor,
    own_constructor,
    stablehlo_constructor,
)
from transfer_jax.weights.constructors.timm_code import timm_constructor
from transfer_jax.weights.constructors.torchvision_code import torchvision_constructor
from transfer_jax.weights.constructors.transformers_code import (
    transformers5_constructor,
    transformers_constructor,
)
from transfer_jax.weights.key_mapping import KeyMap

PROGRAMS = ("stablehlo", "onnx")
"""The formats of programs that run without this package."""

_CONSTRUCTORS = {
    "timm": timm_constructor,
    "torchvision": torchvision_constructor,
    "keras": keras_constructor,
    "transformers": transformers_constructor,
    "transformers-5": transformers5_constructor,
    "vision_transformer": vision_transformer_constructor,
    "big_vision": big_vision_constructor,
    "big_transfer": big_transfer_constructor,
    "efficientnet-pytorch": efficientnet_pytorch_constructor,
    "safetensors": own_constructor,
    "onnx": onnx_constructor,
    "stablehlo": stablehlo_constructor,
}


def constructor_of(target: str, exported: Exported) -> Constructor | None:
    """Returns the constructor of an exported network.

    Args:
        target: A library, `safetensors`, or one of `PROGRAMS`.
        exported: The model.

    Returns:
        The constructor, with empty code if the call is unknown, such as that of a registered family; None if
        the library has no network that computes the same.
    """
    family = family_of(exported.model)
    unknown = target in family.layer_names and (target not in _CONSTRUCTORS or family not in FAMILIES)
    if unknown:
        return Constructor(code="", module=target, runtime="torch")
    return _CONSTRUCTORS[target](exported)


def targets(model: str) -> tuple[str, ...]:
    """Returns the targets of the export of a network.

    They are the libraries with a network that computes the same and has a classifier, `safetensors`, and the
    formats of programs.
    """
    size = variant_of(model).preprocessing.image_size
    exported = Exported(model=model, outputs=2, image_size=size, file="")
    libraries = [
        library
        for library in family_of(model).layer_names
        if KeyMap(model, library).keys("head/classifier/kernel") and constructor_of(library, exported)
    ]
    return (*libraries, "safetensors", *PROGRAMS)


__all__ = ["PROGRAMS", "Constructor", "Exported", "constructor_of", "targets"]
