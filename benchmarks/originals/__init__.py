"""Networks of other libraries that ours are compared with: one module for each family."""

from originals import (
    clip,
    convnext,
    densenet,
    efficientnet,
    efficientnet_lite,
    inception,
    mixer,
    mobilenet,
    regnet,
    resnet,
    resnetv2,
    siglip,
    squeezenet,
    swin,
    vgg,
    vit,
    xception,
)
from originals.original import CLASSES, FileOriginal, Original

_FAMILIES = (
    *(squeezenet, vgg, resnet, resnetv2, regnet, densenet, inception, xception),
    *(mobilenet, efficientnet, efficientnet_lite, convnext, vit, clip, siglip, swin, mixer),
)

_FILES = ("transformers", "transformers-base")

ORIGINALS: dict[tuple[str, str], Original] = {
    case: FileOriginal(**vars(original)) if case[1] in _FILES else original
    for family in _FAMILIES
    for case, original in family.ORIGINALS.items()
}
"""The networks by our name and the library."""

__all__ = ["CLASSES", "ORIGINALS", "Original"]
