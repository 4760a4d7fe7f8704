"""Networks of other libraries that ours are compared with: one module for each family."""

from originals import (
    aimv2,
    beit,
    clip,
    convnext,
    densenet,
    dinov3,
    efficientnet,
    efficientnet_lite,
    eva,
    fastvit,
    ghostnet,
    hiera,
    inception,
    maxvit,
    mixer,
    mobilenet,
    mobilenetv4,
    naflex,
    perception_encoder,
    regnet,
    repvgg,
    res2net,
    resnest,
    resnet,
    resnetv2,
    seresnet,
    siglip,
    squeezenet,
    swin,
    swinv2,
    tinyvit,
    vgg,
    vit,
    xception,
)
from originals.original import CLASSES, FileOriginal, Original

_FAMILIES = (
    *(squeezenet, vgg, resnet, resnetv2, regnet, densenet, inception, xception),
    *(mobilenet, efficientnet, efficientnet_lite, convnext, swin, swinv2, hiera, maxvit, mixer),
    *(mobilenetv4, seresnet, resnest, res2net, repvgg, ghostnet, fastvit, tinyvit),
    *(vit, dinov3, eva, beit, clip, siglip, naflex, perception_encoder, aimv2),
)

_FILES = ("transformers", "transformers-base", "transformers-dinov3")

ORIGINALS: dict[tuple[str, str], Original] = {
    case: FileOriginal(**vars(original)) if case[1] in _FILES else original
    for family in _FAMILIES
    for case, original in family.ORIGINALS.items()
}
"""The networks by our name and the library."""

__all__ = ["CLASSES", "ORIGINALS", "Original"]
