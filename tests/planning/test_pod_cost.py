"""The bound and the estimate of a step on a chip, from programs whose costs are known by hand."""
# ruff: noqa: E501

import pytest

from transfer_jax.planning.chips import CHIPS
from transfer_jax.planning.pod_cost import PodCost, program_fields

V5E = CHIPS["v5e"]
PRODUCT = """
ENTRY %main (x: TYPE[4096,4096], y: TYPE[4096,4096]) -> TYPE[4096,4096] {
  %x = TYPE[4096,4096]{1,0:T(8,128)} parameter(0)
  %y = TYPE[4096,4096]{1,0:T(8,128)} parameter(1)
  ROOT %z = TYPE[4096,4096]{1,0:T(8,128)} convolution(%x, %y), dim_labels=bf_io->bf, backend_config={"estimated_cycles":"CYCLES"}
}
"""
GATHERED = """
ENTRY %main (x: f32[2048,1024]) -> f32[8192,1024] {
  %x = f32[2048,1024]{1,0:T(8,128)} parameter(0)
  ROOT %all = f32[8192,1024]{1,0:T(8,128)} all-gather(%x), replica_groups=[1,4]<=[4], dimensions={0}
}
"""


def cost(text: str) -> PodCost:
    """Returns the cost of a program on a v5e."""
    return PodCost(name="a", train="head", boundary=None, chips=4, images=8, **program_fields(text, V5E))


def product(type: str, cycles: int) -> str:
    """Returns the text of a matrix product."""
    return PRODUCT.replace("TYPE", type).replace("CYCLES", str(cycles))


@pytest.mark.parametrize(
    ("type", "speed", "bytes"), [("bf16", 1, 2), ("s8", 2, 1)], ids=["bfloat16", "integers"]
)
def test_a_product_is_bound_by_its_operations(type, speed, bytes):
    found = cost(product(type, 1_100_000))
    assert (found.flops, found.compulsory_bytes) == (2 * 4096**3, 3 * bytes * 4096**2)
    assert found.bound == "compute"
    assert found.bound_seconds == 2 * 4096**3 / (speed * 197e12)
    assert found.estimated_seconds == pytest.approx(1.1e6 / 1.503e9, rel=1e-3)
    assert found.left_out == ""


def test_an_estimate_is_never_below_the_bound():
    """Cycles leave out transfers, so the time of the traffic or the exchange counts if it is longer."""
    for found in (cost(product("bf16", 1)), cost(GATHERED)):
        assert found.estimated_seconds >= found.bound_seconds


def test_an_exchange_bounds_a_step():
    found = cost(GATHERED)
    assert found.exchanged == 3 * 4 * 2048 * 1024
    assert found.bound == "exchange"
    assert found.bound_seconds == found.exchanged / V5E.link
    assert (found.cycles, found.left_out) == (0, "1 transfer")


def test_a_step_that_does_not_fit_has_no_bound():
    found = PodCost(name="a", train="head", boundary=None, chips=4, images=8, reason="too large")
    assert (found.fits, found.bound) == (False, "")


@pytest.mark.parametrize(("name", "gigahertz"), [("v5e", 1.5), ("v5p", 1.75), ("v6e", 1.75)])
def test_clocks_follow_from_published_peaks(name, gigahertz):
    assert CHIPS[name].clock / 1e9 == pytest.approx(gigahertz, abs=0.01)
