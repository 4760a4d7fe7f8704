"""The networks of other libraries that ours are compared with: one module a family."""

from originals import resnet, vgg
from originals.original import CLASSES, Original

ORIGINALS: dict[tuple[str, str], Original] = {**vgg.ORIGINALS, **resnet.ORIGINALS}
"""By the name of our network, and the library."""

__all__ = ["CLASSES", "ORIGINALS", "Original"]
