"""The networks that a search can use."""

from transfer_jax.models.registry import variant_of
from transfer_jax.planning.forward_cost import prefix_multiply_adds
from transfer_jax.weights.specs import WeightsSpec, specs

MOST = 6
"""Largest number of networks that a search looks at."""


def networks_here(most: int = MOST) -> tuple[str, ...]:
    """Returns the networks whose published weights are on this machine, the cheapest first.

    Of many, those with the best published accuracy are taken.
    """
    here: dict[str, WeightsSpec] = {}
    for spec in specs():
        if spec.model not in here and spec.present():
            here[spec.model] = spec
    best = sorted(here.values(), key=lambda spec: -(spec.accuracy or 0.0))[:most]
    return cheapest_first([spec.model for spec in best])


def cheapest_first(names: list[str]) -> tuple[str, ...]:
    """Returns networks by the operations of their forward passes."""
    return tuple(sorted(names, key=lambda name: prefix_multiply_adds(name, _side(name), None)))


def _side(name: str) -> int:
    return variant_of(name).preprocessing.image_size
