import dataclasses

import pytest

from transfer_jax.data import Augmentation


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.5, 1.1)),
        ("crop_scale", (0.9, 0.5)),
        ("crop_ratio", (0.0, 1.0)),
        ("crop_ratio", (2.0, 1.0)),
        ("color_jitter", -0.1),
        ("color_jitter", 1.5),
        ("randaugment_ops", -1),
        ("randaugment_magnitude", -1.0),
        ("randaugment_magnitude", 31.0),
        ("mixup", -0.2),
        ("cutmix", float("inf")),
        ("cutmix", float("nan")),
    ],
)
def test_values_out_of_range_raise(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be ") as caught:
        Augmentation(**{field: value})
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"crop_scale": None},
        {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)},
        {"color_jitter": 1.0, "randaugment_ops": 2, "randaugment_magnitude": 30.0},
        {"mixup": 0.2, "cutmix": 1.0},
    ],
)
def test_ends_of_ranges_are_valid(change):
    augmentation = dataclasses.replace(Augmentation(), **change)
    assert hash(augmentation) != hash(Augmentation())
