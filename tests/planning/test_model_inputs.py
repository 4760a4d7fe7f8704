"""The match of datasets and networks."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.data import ImageDataset, from_examples
from transfer_jax.models import Backbone, Classifier
from transfer_jax.planning.model_inputs import check_inputs, without_augmentation

TEXTS = from_examples(
    [{"tokens": [1, 2, 3], "mask": [True] * 3, "label": i % 2} for i in range(4)], inputs=("tokens", "mask")
)


class Reader(Backbone):
    """A network that reads arrays."""

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        self.shapes = shapes

    @property
    def inputs(self) -> dict[str, jax.ShapeDtypeStruct]:
        return {name: jax.ShapeDtypeStruct((2, *shape), jnp.int32) for name, shape in self.shapes.items()}


def test_matching_datasets_pass(make_toy: Callable[..., Classifier], toy_images: ImageDataset):
    check_inputs(toy_images, make_toy().backbone, "toy")
    check_inputs(TEXTS, Reader(tokens=(3,), mask=(3,)), "reader")
    check_inputs(TEXTS, Reader(tokens=(3,)), "reader")


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (None, r"'toy' reads images, but the examples are arrays \('tokens', 'mask'\); .*own_model"),
        ({"ids": (3,)}, "reads the array 'ids', but the examples have 'tokens', 'mask'"),
        ({"tokens": (5,)}, r"reads 'tokens' of shape \(5,\), but in the examples it has shape \(3,\)"),
    ],
)
def test_other_arrays_are_refused(make_toy: Callable[..., Classifier], shapes, message):
    backbone = make_toy().backbone if shapes is None else Reader(**shapes)
    with pytest.raises(ValueError, match=message):
        check_inputs(TEXTS, backbone, "toy")


def test_images_are_refused_where_arrays_are_read(toy_images: ImageDataset):
    with pytest.raises(
        ValueError, match=r"reads the arrays 'tokens', but the examples are images; .*inputs="
    ):
        check_inputs(toy_images, Reader(tokens=(3,)), "reader")


def test_a_source_is_no_dataset(make_toy: Callable[..., Classifier]):
    with pytest.raises(TypeError, match="got list; from_examples"):
        check_inputs([np.zeros((4, 4, 3))], make_toy().backbone, "toy")


def test_augmentation_is_left_out_of_all_phases():
    phase = Phase(name="one", train="head", epochs=1, learning_rate=0.1, augment=True, views=2)
    config = TrainConfig(images="texts", schedule=Schedule((phase, dataclasses.replace(phase, name="two"))))
    for each in without_augmentation(config).schedule.phases:
        assert (each.augment, each.views) == (False, 0)
