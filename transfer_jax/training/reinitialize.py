"""Blocks that forget what they were pretrained to do."""

from transfer_jax.freezing.labels import FROZEN, labels
from transfer_jax.freezing.selectors import parse
from transfer_jax.models import Classifier
from transfer_jax.models.flat_arrays import block_of, split, update


def reinitialize(model: Classifier, fresh: Classifier, selector: str) -> None:
    """Gives some blocks of a model the arrays of a fresh one, in place: parameters and running statistics.

    Source: Yosinski et al. 2014, arXiv:1411.1792: the layers above the transferred ones begin at random.

    Args:
        model: The model.
        fresh: One of the same network.
        selector: Picks the blocks; the head is random in any case.

    Raises:
        SelectorError: If it picks what is not there.
    """
    chosen = chosen_blocks(model, selector)
    _, params, stats = split(fresh)
    update(model, {path: x for path, x in {**params, **stats}.items() if block_of(path) in chosen})


def chosen_blocks(model: Classifier, selector: str) -> frozenset[str]:
    """The blocks of the backbone that a selector picks any parameter of."""
    _, params, _ = split(model)
    found = labels(tuple(params), parse(selector), model.backbone.block_names)
    return frozenset(label for label in found.values() if label not in (FROZEN, "head"))
