"""The peak speed of devices."""

import jax
import jax.numpy as jnp
import pytest

from transfer_jax.planning.peaks import measured_peak, peak_of, published_peak
from transfer_jax.planning.topology import CHIPS


@pytest.mark.parametrize(
    ("kind", "dtype", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "float32", 156e12),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989e12),
        ("NVIDIA H100 PCIe", "bfloat16", 756e12),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA L4", "bfloat16", 121e12),
        ("NVIDIA L40S", "float32", 183e12),
        ("Tesla T4", "float32", 8.1e12),
        ("Tesla T4", "bfloat16", None),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("TPU v5 lite", "bfloat16", CHIPS["v5e"].flops),
        ("TPU v5p", "float32", CHIPS["v5p"].flops),
        ("TPU v6 lite", "bfloat16", CHIPS["v6e"].flops),
        ("TPU v9", "bfloat16", None),
        ("cpu", "float32", None),
    ],
)
def test_published_peaks(kind, dtype, expected):
    assert published_peak(kind, jnp.dtype(dtype)) == expected


def test_the_peak_of_an_unknown_device_is_measured_and_says_so(monkeypatch):
    monkeypatch.setattr("transfer_jax.planning.peaks._SIDES", {"cpu": 256})
    device = jax.devices("cpu")[0]
    found = peak_of(device, jnp.float32)
    assert found.source == "measured, a product of 256 x 256 matrices"
    assert 1e8 < found.flops < 1e14  # A product takes between 0.3 us and 0.3 s.
    assert measured_peak(device, jnp.bfloat16).flops > 1e6
