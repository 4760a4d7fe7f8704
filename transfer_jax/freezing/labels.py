"""Labels of parameters: `frozen`, or the name of the block whose learning rate the parameter uses.

The trainable and frozen partitions and the optimizer are made from the same labels, so they always agree.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from transfer_jax.fields import as_tuple
from transfer_jax.freezing.selectors import Selector, SelectorError, parse
from transfer_jax.models.paths import block_of

if TYPE_CHECKING:
    import optax

FROZEN = "frozen"
"""Label of a frozen parameter."""

T = TypeVar("T")


def in_block_order(paths: Iterable[str], block_names: Sequence[str]) -> tuple[str, ...]:
    """Sorts paths by the position of their block, input side first and the head last.

    Args:
        paths: Paths of parameters.
        block_names: The backbone's blocks in order.
    """
    position = {name: index for index, name in enumerate((*block_names, "head"))}
    return tuple(sorted(paths, key=lambda path: (position[block_of(path)], path)))


def labels(params: Iterable[str], selector: Selector | str, block_names: Sequence[str]) -> dict[str, str]:
    """Labels every parameter of a model as frozen, or with the name of its block.

    Example:
        >>> paths = ["backbone/stem/conv/kernel", "head/classifier/kernel"]
        >>> labels(paths, head, ["stem"])
        {'backbone/stem/conv/kernel': 'frozen', 'head/classifier/kernel': 'head'}

    Args:
        params: Paths of all parameters of a model; a dictionary by path is accepted.
        selector: Selector of the trainable parameters, or its expression such as `top(2)`.
        block_names: The backbone's blocks in order, input side first.

    Returns:
        The label of each path, in the order of the blocks: `frozen`, or the name of its block.

    Raises:
        SelectorError: If the selector does not fit the parameters, or selects none.
    """
    ordered = in_block_order(params, as_tuple(block_names))
    selector = selector if isinstance(selector, Selector) else parse(selector)
    chosen = selector.select(ordered)
    if not chosen:
        raise SelectorError(f"{selector} leaves nothing to train")
    return {path: block_of(path) if path in chosen else FROZEN for path in ordered}


def freeze_first(labels: Mapping[str, str], frozen_depth: int) -> dict[str, str]:
    """Returns the labels with the first blocks of the backbone frozen.

    Args:
        labels: Labels by path, in the order of the blocks.
        frozen_depth: Number of blocks with parameters to freeze, from the input.

    Raises:
        SelectorError: If no parameter remains trainable.
    """
    blocks = [block for block in dict.fromkeys(map(block_of, labels)) if block != "head"]
    frozen_blocks = set(blocks[:frozen_depth])
    changed = {path: FROZEN if block_of(path) in frozen_blocks else label for path, label in labels.items()}
    if not any(label != FROZEN for label in changed.values()):
        raise SelectorError(
            f"a frozen depth of {frozen_depth} of {len(blocks)} blocks leaves nothing to train"
        )
    return changed


def partition(tree: Mapping[str, T], labels: Mapping[str, str]) -> tuple[dict[str, T], dict[str, T]]:
    """Splits a dictionary by path into its trainable and its frozen part.

    Args:
        tree: Values by path, such as parameters; each path must have a label.
        labels: Labels by path.

    Returns:
        The trainable values by path, and the frozen values by path.
    """
    trainable = {path: value for path, value in tree.items() if labels[path] != FROZEN}
    frozen = {path: value for path, value in tree.items() if labels[path] == FROZEN}
    return trainable, frozen


def trainable_blocks(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the blocks with a trainable parameter, in the order of the labels."""
    return tuple(dict.fromkeys(label for label in labels.values() if label != FROZEN))


def boundary(labels: Mapping[str, str], block_names: Sequence[str]) -> str | None:
    """Returns the last block of the frozen prefix, or None if the first block is trainable.

    The backward pass stops at this block, and its activations are the features that a phase caches.

    Args:
        labels: Labels by path.
        block_names: The backbone's blocks in order, input side first.
    """
    trainable = set(trainable_blocks(labels))
    last = None
    for name in block_names:
        if name in trainable:
            break
        last = name
    return last


def multi_transform(
    transforms: "Mapping[str, optax.GradientTransformation]", labels: Mapping[str, str]
) -> "optax.GradientTransformationExtraArgs":
    """Returns `optax.multi_transform` by label, with zero updates for `frozen` parameters.

    The transformation accepts all parameters or only the trainable ones. Pass the trainable ones: then no
    gradients and no moments are computed for frozen parameters.

    Example:
        >>> found = labels(params, top(1), model.backbone.block_names)
        >>> trainable, frozen = partition(params, found)
        >>> optimizer = multi_transform({"top": optax.sgd(1e-3), "head": optax.adam(1e-2)}, found)
        >>> state = optimizer.init(trainable)

    Args:
        transforms: One transformation for each label except `frozen`.
        labels: Labels by path.
    """
    import optax  # Imports JAX, which configs and the command line's help do without.

    return optax.multi_transform(
        {**transforms, FROZEN: optax.set_to_zero()},
        lambda params: {path: labels[path] for path in params},
    )
