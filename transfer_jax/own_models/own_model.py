"""A model of the user's own, with all that `fit` needs to know about it."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from transfer_jax.freezing.block_groups import BlockGroups
from transfer_jax.freezing.function_split import blocks_by_depth
from transfer_jax.freezing.function_split.headless import without_head
from transfer_jax.freezing.function_split.jaxprs import is_literal
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram
from transfer_jax.freezing.trees import leaves_by_path
from transfer_jax.models import Preprocessing
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family
from transfer_jax.models.flax_functions import ModelFunction, linen_function, nnx_function
from transfer_jax.own_models.modes import Modes, nnx_modes

IMAGENET = Preprocessing(mean=IMAGENET_MEAN, std=IMAGENET_STD)
"""The preprocessing of most networks that were trained on ImageNet."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class OwnModel:
    """A model of the user's own, as `own_model` describes it.

    Functions have the form `function(params, state, batch, key) -> (outputs, new_state)`, where parameters
    and state are dictionaries by path.

    Attributes:
        name: A name for messages.
        modes: Function from the groups in training mode and `Phase.norm` to the model's function.
        params: The parameters by path, without those of a head that is replaced.
        state: The running statistics by path.
        groups: The group of each parameter by path, input side first. A group is a block of the backbone.
        inputs: Keys of the batch that the model is called with; `image` for images.
        batch: Shapes of a batch.
        preprocessing: The preprocessing of images; it is not used for other data.
        features: Number of features that the model computes for each example, which a new head reads.
        takes_arrays: Whether the inputs are arrays by name, and no images.
    """

    name: str
    modes: Modes
    params: Mapping[str, jax.Array]
    state: Mapping[str, jax.Array]
    groups: BlockGroups
    inputs: tuple[str, ...]
    batch: Mapping[str, jax.ShapeDtypeStruct]
    preprocessing: Preprocessing
    features: int
    takes_arrays: bool

    def family(self, name: str) -> Family:
        """Returns the family of this one network under a name."""
        from transfer_jax.own_models.register import family_of_model

        return family_of_model(name, self)


def own_model(
    model: Any,
    variables: Mapping[str, Any] | None = None,
    *,
    head: str | None = None,
    blocks: Sequence[str] | Mapping[str, str] | str | None = None,
    inputs: Sequence[str] = ("image",),
    batch: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing = IMAGENET,
    **settings: Any,
) -> OwnModel:
    """Describes a model for `fit(model=…)`, `register_model` and `--model package.module:function`.

    The model's parameters are the pretrained ones. `fit` adds a new head to the features that it returns, or
    to those that the layer `head` reads, which is left out.

    Example:
        >>> mine = own_model(network, head="classifier")  # An `nnx.Module`.
        >>> mine = own_model(module, variables, head="Dense_0", train=False)  # A Linen module.
        >>> mine = own_model((function, params, state))  # As `split_frozen` takes it.

    Args:
        model: An `nnx.Module`; a Linen module; or a function with its parameters and its state (None if it
            has none).
        variables: The variables of a Linen module.
        head: The layer to leave out, as the first parts of the paths of its parameters; None if the model
            returns features `(batch, features)`.
        blocks: The blocks of the model; see `labels`. Their order is found in the traced function.
        inputs: Keys of the batch that the model is called with, in order.
        batch: An example of a batch, as arrays or shapes; None for images of the size of the preprocessing.
        preprocessing: The preprocessing of images that the parameters were trained with; that of most
            ImageNet networks by default.
        **settings: Keyword arguments of each call of a Linen module, such as `train=False`. The same call
            trains and evaluates, so they should select the inference mode.

    Raises:
        ValueError: If the model does not return one array `(batch, features)`, `head` names no parameter, or
            the layer `head` reads several arrays.
        TypeError: If the model is of another type.
    """
    inputs = tuple(inputs)
    made, kind = _function_of(model, variables, inputs, settings)
    params = {path: jnp.asarray(leaf) for path, leaf in leaves_by_path(made.params).items()}
    state, constants = _numbers(leaves_by_path(made.state))
    shapes = _batch_shapes(batch, inputs, preprocessing)
    unused = _unused_params(made, shapes)
    unused = {path: params.pop(path) for path in unused}
    flat = functools.partial(_flat, made=made, constants={**unused, **constants})
    removed = {
        path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in params.items() if _is_in(path, head)
    }
    if head is not None and not removed:
        raise ValueError(f"head {head!r} names no parameter; the paths begin with {_beginnings(params)}")

    def finished(function: Callable[..., Any]) -> Callable[..., Any]:
        whole = flat(function)
        return without_head(whole, removed) if removed else whole

    kept = {path: x for path, x in params.items() if path not in removed}
    inference = finished(made.function)
    features = _features(inference, kept, state, shapes, head)
    groups = blocks_by_depth(inference, kept, shapes, state=state, blocks=blocks)
    switched = nnx_modes(model, inputs, groups) if isinstance(model, nnx.Module) else None

    @functools.cache
    def modes(training: frozenset[str], norm: str) -> Callable[..., Any]:
        return finished(switched(training, norm)) if training and switched else inference

    return OwnModel(
        name=kind,
        modes=modes,
        params=kept,
        state=state,
        groups=groups,
        inputs=inputs,
        batch=shapes,
        preprocessing=preprocessing,
        features=features,
        takes_arrays=batch is not None,
    )


def _function_of(
    model: Any, variables: Mapping[str, Any] | None, inputs: tuple[str, ...], settings: Mapping[str, Any]
) -> tuple[ModelFunction, str]:
    """Returns a model in inference mode as a function, and the name of its type."""
    kind = type(model).__name__
    if isinstance(model, nnx.Module):
        copy = nnx.clone(model)
        copy.eval()
        return nnx_function(copy, *inputs), kind
    if isinstance(model, tuple) and len(model) == 3 and callable(model[0]):
        function, params, state = model
        return ModelFunction(function, params, state), getattr(function, "__name__", "function")
    if hasattr(model, "apply") and hasattr(model, "init"):
        if variables is None:
            raise ValueError(f"a Linen module needs its variables: own_model({kind}, variables, …)")
        return linen_function(model, variables, *inputs, **settings), kind
    raise TypeError(
        f"got a model of the type {kind}; give an nnx.Module, a Linen module with its variables, or a tuple "
        "(function, params, state)"
    )


def _unused_params(made: ModelFunction, batch: Any) -> list[str]:
    """Returns the paths of the parameters that do not affect the outputs."""
    signature = Signature(made.function, made.params, frozenset(), made.state, batch, None)
    program = SizedProgram(signature, 2)
    used = {atom for each in program.equations for atom in each.invars if not is_literal(atom)}
    return [path for path, variable in program.inputs["params"].items() if variable not in used]


def _flat(
    function: Callable[..., Any], *, made: ModelFunction, constants: Mapping[str, Any]
) -> Callable[..., Any]:
    """Returns a function of parameters and state as dictionaries by path, which lack the constants."""

    def flat(params: Mapping[str, Any], states: Mapping[str, Any], batch: Any, key: Any) -> Any:
        nested = _nested(made.params, {**constants, **params}), _nested(made.state, {**constants, **states})
        result = function(*nested, batch, key)
        outputs, after = result if made.state is not None else (result, None)
        return outputs, {path: x for path, x in leaves_by_path(after).items() if path in states}

    return flat


def _nested(tree: Any, leaves: Mapping[str, Any]) -> Any:
    return jax.tree.unflatten(jax.tree.structure(tree), [leaves[path] for path in leaves_by_path(tree)])


def _numbers(state: Mapping[str, Any]) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """Returns the running statistics of a state, and all else: random keys and counters."""
    chosen = {path for path, leaf in state.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
    statistics = {path: jnp.asarray(leaf) for path, leaf in state.items() if path in chosen}
    return statistics, {path: leaf for path, leaf in state.items() if path not in chosen}


def _batch_shapes(
    batch: Mapping[str, Any] | None, inputs: tuple[str, ...], preprocessing: Preprocessing
) -> dict[str, jax.ShapeDtypeStruct]:
    if batch is not None:
        missing = [name for name in inputs if name not in batch]
        if missing:
            raise ValueError(f"the batch has no {missing[0]!r}; it has {sorted(batch)}")
        return {name: jax.ShapeDtypeStruct(batch[name].shape, batch[name].dtype) for name in inputs}
    if len(inputs) != 1:
        raise ValueError(f"give an example of a batch with the inputs {inputs}, as `batch`")
    side = preprocessing.image_size
    return {inputs[0]: jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)}


def _features(function: Callable[..., Any], params: Any, state: Any, batch: Any, head: str | None) -> int:
    outputs, _ = jax.eval_shape(function, params, state, batch, None)
    shapes = [leaf.shape for leaf in jax.tree.leaves(outputs)]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        what = "the model returns" if head is None else f"the head {head!r} reads"
        raise ValueError(
            f"{what} arrays of the shapes {shapes}; a new head reads one array (batch, features): "
            "name the last layer as `head`, or return pooled features"
        )
    return shapes[0][1]


def _is_in(path: str, head: str | None) -> bool:
    return head is not None and (path == head or path.startswith(f"{head}/"))


def _beginnings(paths: Collection[str]) -> str:
    return ", ".join(sorted({path.split("/")[0] for path in paths})[:12])
