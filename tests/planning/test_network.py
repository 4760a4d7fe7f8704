import dataclasses

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule, feature_extraction
from transfer_jax.models.flat_arrays import split
from transfer_jax.planning.network import abstract_model, check_config, expected_input, override, set_outputs

TINY = "efficientnet_lite_tiny"
PHASE = Phase(name="only", train="head", epochs=1, learning_rate=0.01)


def config(folder, **changes) -> TrainConfig:
    return TrainConfig(**{"images": str(folder), "model": TINY, "weights": "none", **changes})


def test_overrides_of_the_preprocessing():
    preprocessing = expected_input(config("none"))
    assert override(preprocessing, None, None) == preprocessing
    assert override(preprocessing, 48, 0.5) == dataclasses.replace(
        preprocessing, image_size=48, crop_fraction=0.5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "efficientnet_lite_tinny"},
            "unknown model 'efficientnet_lite_tinny'.*efficientnet_lite_tiny",
        ),
        ({"weights": "auto"}, f"no published weights for '{TINY}'"),
        (
            {"schedule": Schedule((dataclasses.replace(PHASE, train="top(99)"),))},
            r"top\(99\): the backbone has",
        ),
        (
            {"schedule": Schedule((dataclasses.replace(PHASE, train="all_()"),)), "prefix_precision": "int8"},
            "prefix_precision='int8' needs a frozen part below what trains, but each phase trains the first",
        ),
        (
            {"schedule": Schedule((dataclasses.replace(feature_extraction().phases[0], train="all_()"),))},
            "requires a cache, but its lowest block trains",
        ),
    ],
)
def test_an_invalid_config_is_found_before_anything_is_read(changes, message):
    with pytest.raises(ValueError, match=message):
        check_config(config("/no/such/folder", **changes))


def test_the_classes_of_an_abstract_model_are_set_later():
    model = abstract_model(config("none", hidden=(5,)), 2)
    set_outputs(model, 7)
    found, wanted = (split(each)[1] for each in (model, abstract_model(config("none", hidden=(5,)), 7)))
    assert {path: array.shape for path, array in found.items()} == {
        path: array.shape for path, array in wanted.items()
    }
