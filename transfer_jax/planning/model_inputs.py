"""The match of a dataset and a network: both have images, or both have the same arrays."""

import dataclasses
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset
from transfer_jax.models import Backbone


def check_inputs(dataset: Any, backbone: Backbone, name: str) -> None:
    """Checks that the examples of a dataset are those that a network reads.

    Args:
        dataset: The dataset.
        backbone: The network.
        name: Name of the network, for messages.

    Raises:
        ValueError: If one has images and the other one arrays, or an array is missing or has another shape.
        TypeError: If it is no dataset.
    """
    if not isinstance(dataset, ImageDataset):
        raise TypeError(
            f"dataset must be an ImageDataset, got {type(dataset).__name__}; from_examples(source) makes one"
        )
    found, wanted = dataset.inputs or {}, backbone.inputs or {}
    if found and not wanted:
        raise ValueError(
            f"the network {name!r} reads images, but the examples are arrays ({_names(found)}); give a model "
            "of your own that reads them, as own_model(…, inputs=…, batch=…)"
        )
    if wanted and not found:
        raise ValueError(
            f"the network {name!r} reads the arrays {_names(wanted)}, but the examples are images; name the "
            "arrays as from_examples(…, inputs=…)"
        )
    for key, each in wanted.items():
        if key not in found:
            raise ValueError(
                f"the network {name!r} reads the array {key!r}, but the examples have {_names(found)}"
            )
        if found[key].shape != each.shape[1:]:
            raise ValueError(
                f"the network {name!r} reads {key!r} of shape {each.shape[1:]}, but in the examples it has "
                f"shape {found[key].shape}; give own_model a batch of the examples"
            )


def without_augmentation(config: TrainConfig) -> TrainConfig:
    """Returns the config with no augmentation in any phase, for examples that are not images."""
    phases = (dataclasses.replace(phase, augment=False, views=0) for phase in config.schedule.phases)
    return dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, phases=tuple(phases)))


def _names(arrays: Any) -> str:
    return ", ".join(map(repr, arrays))
