"""The same networks in other libraries."""

from typing import Any

import numpy as np

_TIMM = {"efficientnet_lite0": "tf_efficientnet_lite0"}


def timm_network(model: str, num_classes: int) -> Any:
    """The network of timm with our weights, channels_last, in inference mode; 0 classes end in features.

    The weights must be real: with random ones the activations shrink to denormal numbers, which are slow.
    Both libraries name the same arrays in the same order, and loading checks every shape.
    """
    import timm
    import torch

    from transfer_jax.weights import find_spec
    from transfer_jax.weights.readers import read_weights

    source = read_weights(find_spec(model).path())
    arrays = [torch.from_numpy(np.array(source[key])) for key in source if not key.startswith("_fc")]
    network = timm.create_model(_TIMM[model], num_classes=num_classes)
    state = network.state_dict()
    names = [name for name in state if not name.startswith("classifier")]
    network.load_state_dict({**state, **dict(zip(names, arrays, strict=True))})
    return network.eval().to(memory_format=torch.channels_last)
