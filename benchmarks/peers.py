"""The same networks in transfer_jax and in other libraries."""

import dataclasses
from typing import Any

import numpy as np
from originals import ORIGINALS

from transfer_jax.models import Classifier, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import variant_of
from transfer_jax.weights import find_spec, load_pretrained
from transfer_jax.weights.key_mapping import KeyMap, to_library
from transfer_jax.weights.loading import load_arrays
from transfer_jax.weights.specs import WeightsSpec

REAL = "efficientnet_lite0"
MODELS = (REAL, "mobilenet_v2", "resnet50", "vit_small_patch16_224")

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Given:
    """The input of all programs of a comparison.

    Attributes:
        name: Our name of the network.
        arrays: Its arrays, by the names of timm.
        count: Images of a batch.
        size: Their side in pixels.
        precision: `float32` or `bfloat16`.
    """

    name: str
    arrays: Arrays
    count: int
    size: int
    precision: str


def timm_arrays(name: str, size: int) -> Arrays:
    """Returns the arrays of a network without its classifier, by the names of timm.

    Those of EfficientNet-Lite0 are real. The others are random, with matching running statistics: with
    others the activations shrink to denormal numbers, which are slow.
    """
    if name == REAL:
        model = create_model(name, 2, abstract_backbone=True)
        load_pretrained(model, find_spec(name))
        _, params, stats = split(model)
        ours = {path: array for path, array in {**params, **stats}.items() if not path.startswith("head/")}
        return to_library(name, ours, "timm")
    original = ORIGINALS[name, "timm"]
    key_map = KeyMap(name, "timm")
    classifier = {key for leaf in ("kernel", "bias") for key in key_map.keys(f"head/classifier/{leaf}")}
    arrays = original.state(original.randomized(name, size))
    return {key: array for key, array in arrays.items() if key not in classifier}


def our_network(given: Given, num_classes: int) -> Classifier:
    """Returns our network with those arrays, in inference mode."""
    name, preprocessing = given.name, variant_of(given.name).preprocessing
    model = create_model(name, num_classes, image_size=given.size, abstract_backbone=True)
    load_arrays(
        model, given.arrays, WeightsSpec(name=name, model=name, address="", preprocessing=preprocessing)
    )
    model.eval()
    return model


def timm_network(given: Given, num_classes: int) -> Any:
    """Returns timm's network with those arrays, channels_last, for inference; 0 classes return features."""
    import torch

    network = ORIGINALS[given.name, "timm"].make(given.name, given.size)
    network.reset_classifier(num_classes)
    tensors = {key: torch.from_numpy(np.array(array)) for key, array in given.arrays.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    expected = ("classifier.", "fc.", "head.")
    assert all(key.startswith(expected) or key.endswith("num_batches_tracked") for key in missing), missing
    return network.eval().to(memory_format=torch.channels_last)


def normalize(name: str, images: Any) -> Any:
    """Returns uint8 images `(batch, height, width, 3)` as the tensor that timm's network expects."""
    import torch

    preprocessing = variant_of(name).preprocessing
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return ((images.float() - mean) / std).permute(0, 3, 1, 2)
