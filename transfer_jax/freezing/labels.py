"""Labels of parameters: `frozen`, or the name of the block whose learning rate the parameter uses.

The trainable and frozen partitions and the optimizer are made from the same labels, so they always agree.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transfer_jax.freezing.block_groups import group_by_block
from transfer_jax.freezing.selectors import Selector, SelectorError, parse
from transfer_jax.freezing.trees import FROZEN, is_flat, leaves_by_path, map_by_path
from transfer_jax.models.paths import block_of

if TYPE_CHECKING:
    import optax

Blocks = Sequence[str] | Mapping[str, str] | str | None
"""The blocks of a model: names in order, the block of each path, a pattern, or None; see `labels`."""


def labels(params: Any, selector: Selector | str, blocks: Blocks = None) -> Any:
    """Labels every parameter of a model as frozen, or with the name of its block.

    Example:
        >>> paths = ["backbone/stem/conv/kernel", "head/classifier/kernel"]
        >>> labels(paths, head, ["stem"])
        {'backbone/stem/conv/kernel': 'frozen', 'head/classifier/kernel': 'head'}
        >>> labels({"body": {"kernel": 1}, "head": {"kernel": 2}}, head, ["body"])
        {'body': {'kernel': 'frozen'}, 'head': {'kernel': 'head'}}

    Args:
        params: Any tree of parameters, such as nested dictionaries, `nnx.State` or an Equinox module; or
            paths.
        selector: Selector of the trainable parameters, or its expression such as `top(2)`.
        blocks: The names of the blocks in order, input side first, each the first parts of the paths of its
            parameters, and `head` last, which may be left out; or a regular expression whose first group is
            the name; or the block of each path in order, as `blocks_by_depth` returns it. None takes the
            first parts of a path up to the first one with a number, or all but the last; their order is
            unknown then.

    Returns:
        A tree of the same structure with the label of each parameter: `frozen`, or the name of its block. For
        paths, or a dictionary by path, a dictionary by path in the order of the blocks.

    Raises:
        SelectorError: If the selector does not fit the parameters, or selects none.
    """
    selector = selector if isinstance(selector, Selector) else parse(selector)
    by_path = is_flat(params) or _are_paths(params)
    groups = group_by_block(params if by_path else leaves_by_path(params), blocks)
    chosen = selector.select(groups)
    if not chosen:
        raise SelectorError(f"{selector} leaves nothing to train")
    found = {path: block if path in chosen else FROZEN for path, block in groups.items()}
    return found if by_path else map_by_path(lambda path, _: found[path], params)


def _are_paths(params: Any) -> bool:
    return isinstance(params, (list, tuple)) and all(isinstance(path, str) for path in params)


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
    transforms: "Mapping[str, optax.GradientTransformation]", labels: Any
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
        labels: The labels of the parameters: a tree with the same paths, or a dictionary by path.
    """
    import optax  # Imports JAX, which configs and the command line's help do without.

    by_path = labels if is_flat(labels) else leaves_by_path(labels)
    return optax.multi_transform(
        {**transforms, FROZEN: optax.set_to_zero()},
        lambda params: map_by_path(lambda path, _: by_path[path], params),
    )
