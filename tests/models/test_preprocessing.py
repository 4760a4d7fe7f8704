import dataclasses

import jax.numpy as jnp
import pytest

from transfer_jax.models.preprocessing import Preprocessing


def test_bgr_weights_get_blue_first():
    expected = Preprocessing(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 3.0), channel_order="bgr")
    red = expected.normalize(jnp.array([[[[11, 20, 30]]]], jnp.uint8))
    assert red.tolist() == [[[[0.0, 0.0, 1.0]]]]
    with pytest.raises(ValueError, match=r"channel_order must be one of .* got 'grb'"):
        dataclasses.replace(expected, channel_order="grb")
