"""The tree of labels: the only truth about what is frozen.

A label is `frozen`, or the name of the block whose learning rate the parameter follows. Both the split into
trainable and frozen and the optimizer are made from the same labels.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import optax

from transfer_jax.freezing.selectors import Selector, SelectorError
from transfer_jax.models.flat_arrays import block_of

FROZEN = "frozen"

T = TypeVar("T")


def in_block_order(paths: Iterable[str], block_names: Sequence[str]) -> tuple[str, ...]:
    """Sorts paths by the position of their block, input side first and the head last."""
    position = {name: index for index, name in enumerate((*block_names, "head"))}
    return tuple(sorted(paths, key=lambda path: (position[block_of(path)], path)))


def labels(params: Iterable[str], selector: Selector, block_names: Sequence[str]) -> dict[str, str]:
    """Labels every parameter.

    Args:
        params: Paths of all parameters of a model.
        selector: Which of them train.
        block_names: The backbone's blocks in order.

    Returns:
        For each path `frozen`, or the name of its block.

    Raises:
        SelectorError: If nothing would train.
    """
    ordered = in_block_order(params, block_names)
    chosen = selector.select(ordered)
    if not chosen:
        raise SelectorError(f"{selector} leaves nothing to train")
    return {path: block_of(path) if path in chosen else FROZEN for path in ordered}


def freeze_first(labels: Mapping[str, str], frozen_depth: int) -> dict[str, str]:
    """The labels with the first blocks of the backbone frozen.

    Args:
        labels: From path to label, in the order of the blocks.
        frozen_depth: How many blocks with parameters to freeze.

    Raises:
        SelectorError: If nothing would be left to train.
    """
    blocks = [block for block in dict.fromkeys(map(block_of, labels)) if block != "head"]
    below = set(blocks[:frozen_depth])
    found = {path: FROZEN if block_of(path) in below else label for path, label in labels.items()}
    if not any(label != FROZEN for label in found.values()):
        raise SelectorError(
            f"a frozen depth above the first {frozen_depth} of {len(blocks)} blocks leaves nothing to train"
        )
    return found


def partition(tree: Mapping[str, T], labels: Mapping[str, str]) -> tuple[dict[str, T], dict[str, T]]:
    """Splits a dictionary by path into its trainable and its frozen part."""
    trainable = {path: value for path, value in tree.items() if labels[path] != FROZEN}
    frozen = {path: value for path, value in tree.items() if labels[path] == FROZEN}
    return trainable, frozen


def trainable_blocks(labels: Mapping[str, str]) -> tuple[str, ...]:
    """The blocks with a trainable parameter, in the order of the labels."""
    return tuple(dict.fromkeys(label for label in labels.values() if label != FROZEN))


def boundary(labels: Mapping[str, str], block_names: Sequence[str]) -> str | None:
    """The last block of the frozen prefix, or None if the first block with parameters trains.

    Backward never goes below it, and its activations are the features of the phase.
    """
    training = set(trainable_blocks(labels))
    last = None
    for name in block_names:
        if name in training:
            break
        last = name
    return last


def multi_transform(
    transforms: Mapping[str, optax.GradientTransformation], labels: Mapping[str, str]
) -> optax.GradientTransformationExtraArgs:
    """`optax.multi_transform` by label, with `frozen` parameters set to zero updates.

    It takes the whole tree of parameters or only the trainable part; the second is what saves the backward
    pass and the moments of the frozen part.

    Args:
        transforms: One transformation for each label but `frozen`.
        labels: From path to label.
    """
    return optax.multi_transform(
        {**transforms, FROZEN: optax.set_to_zero()},
        lambda params: {path: labels[path] for path in params},
    )
