"""A network of another library, and which of its modules are our blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

CLASSES = 11


class Original(NamedTuple):
    """A network of another library.

    Attributes:
        make: From our name and an image size to the network, with `CLASSES` classes.
        module: From our name and our block to the module whose output is the same; "" where there is none.
        logits: The module that gives what our classifier does; "" for the whole network.
        besides: Regular expression of keys that are no part of what is compared.
        odd: Side of the other images to compare at; 0 for three quarters of the native size.
        channels_last: Whether images in it have their channels last.
    """

    make: Callable[[str, int], Any]
    module: Callable[[str, str], str]
    logits: str = ""
    besides: str = ""
    odd: int = 0
    channels_last: bool = False


def tower(shape: Any, size: int) -> dict[str, Any]:
    """The sizes of a vision transformer of ours as transformers' configs have them."""
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.hidden or 4 * shape.width,
        "patch_size": shape.patch,
        "image_size": size,
    }


def torchvision_network(name: str, size: int) -> Any:
    """The network of that name in torchvision."""
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES)


def timm_network(name: str, size: int) -> Any:
    """The network of that name in timm."""
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES)


def timm_network_of_size(name: str, size: int) -> Any:
    """The network of that name in timm, with positions for images of a size."""
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES, img_size=size)
