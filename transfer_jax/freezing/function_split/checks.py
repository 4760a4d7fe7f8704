"""Checks of the arguments of `split_frozen` and of the traced function."""

from collections.abc import Callable
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.freezing.function_split.jaxprs import is_literal
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram
from transfer_jax.freezing.trees import FROZEN, leaves_by_path


def checked_signature(
    function: Callable[..., Any], params: Any, labels: Any, batch: Any, key: Any, state: Any
) -> Signature:
    """Returns the signature of a function with labelled parameters.

    Raises:
        ValueError: If the labels do not fit the parameters, all parameters are frozen, or the arrays of the
            batch have no common axis 0.
    """
    paths, names = leaves_by_path(params), leaves_by_path(labels)
    if {*paths} != {*names}:
        differing = sorted({*paths} ^ {*names})
        raise ValueError(
            f"the labels do not fit the parameters; {len(differing)} paths differ: {differing[:3]}"
        )
    trainable = frozenset(path for path, label in names.items() if label != FROZEN)
    if not trainable:
        raise ValueError("all parameters are frozen; give at least one of them another label")
    shapes = {path: getattr(leaf, "shape", ()) for path, leaf in leaves_by_path(batch).items()}
    sizes = {path: shape[0] if shape else None for path, shape in shapes.items()}
    if len({*sizes.values()}) != 1 or None in sizes.values():
        raise ValueError(
            f"all arrays of the batch must have the examples on axis 0; the sizes of axis 0 are {sizes}"
        )
    return Signature(function, params, trainable, state, batch, key)


def check_used(program: SizedProgram, trainable: frozenset[str]) -> None:
    """Raises `ValueError` if a trainable parameter does not affect the results."""
    used = {atom for each in program.equations for atom in each.invars if not is_literal(atom)}
    used |= {each for each in program.program.outputs if not is_literal(each)}
    unused = [path for path in sorted(trainable) if program.inputs["params"][path] not in used]
    if unused:
        raise ValueError(
            f"{counted(len(unused), 'trainable parameter does', 'trainable parameters do')} not affect the "
            f"outputs, such as {unused[0]!r}; freeze them"
        )


def check_frozen_state(program: SizedProgram) -> None:
    """Raises `ValueError` if a state depends on the batch and on no trainable parameter, but changes.

    The state of a layer with trainable parameters may change, such as the running statistics of a trainable
    normalization of frozen features.
    """
    if not program.moving:
        return
    of_batch, trainable = program.depends_on_batch(), _trainable_layers(program)
    results = program.program.outputs[-len(program.inputs["state"]) :]
    for path, result in zip(program.inputs["state"], results, strict=True):
        if path not in program.moving or is_literal(result) or result not in of_batch:
            continue
        if f"/{path.rpartition('/')[0]}".endswith(trainable):
            continue
        cause = program.program.causes.get(result)
        if cause is None or not cause.trainable:
            source = program.program.source(program.program.makers[result])
            raise ValueError(
                f"the frozen part changes the state {path} ({source}); switch its layers to inference mode, "
                "for example with `module.eval()` or `use_running_average=True`"
            )


def _trainable_layers(program: SizedProgram) -> tuple[str, ...]:
    """Returns the paths of the layers with a trainable parameter, each after a slash."""
    causes = {
        path: program.program.causes.get(variable) for path, variable in program.inputs["params"].items()
    }
    found = {
        path.rpartition("/")[0] for path, cause in causes.items() if cause is not None and cause.trainable
    }
    return tuple(f"/{layer}" for layer in found if layer)
