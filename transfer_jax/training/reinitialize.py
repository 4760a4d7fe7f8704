"""Reinitialization of pretrained blocks with random values."""

from transfer_jax.freezing.labels import labels
from transfer_jax.freezing.selectors import parse
from transfer_jax.freezing.trees import FROZEN
from transfer_jax.models import Classifier
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.models.paths import block_of


def reinitialize(model: Classifier, fresh: Classifier, selector: str) -> None:
    """Replaces the arrays of some blocks with those of a fresh model, in place: parameters and statistics.

    Source: Yosinski et al. 2014, arXiv:1411.1792, where the layers above the transferred ones are random.

    Args:
        model: The model.
        fresh: A model of the same network with random arrays.
        selector: Selector of the blocks; the head is random in any case.

    Raises:
        SelectorError: If the selector matches nothing.
    """
    chosen = chosen_blocks(model, selector)
    _, params, stats = split(fresh)
    update(model, {path: x for path, x in {**params, **stats}.items() if block_of(path) in chosen})


def chosen_blocks(model: Classifier, selector: str) -> frozenset[str]:
    """Returns the blocks of the backbone in which a selector matches a parameter."""
    _, params, _ = split(model)
    found = labels(tuple(params), parse(selector), model.backbone.block_names)
    return frozenset(label for label in found.values() if label not in (FROZEN, "head"))
