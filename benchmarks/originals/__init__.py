"""The networks of other libraries that ours are compared with: one module a family."""

from originals import convnext, resnet, vgg, vit
from originals.original import CLASSES, Original

ORIGINALS: dict[tuple[str, str], Original] = {
    case: original for family in (vgg, resnet, convnext, vit) for case, original in family.ORIGINALS.items()
}
"""By the name of our network, and the library."""

__all__ = ["CLASSES", "ORIGINALS", "Original"]
