"""The split of any JAX function into a frozen part, computed once per example, and a trainable part."""

import dataclasses
import functools
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.freezing.function_split.boundary import Boundary, bytes_per_example, find_boundary
from transfer_jax.freezing.function_split.examples import PerExample
from transfer_jax.freezing.function_split.jaxprs import (
    Var,
    as_function,
    as_text,
    flops,
    is_literal,
    source_of,
)
from transfer_jax.freezing.function_split.program import Cause, live_equations
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram
from transfer_jax.freezing.freeze_check import array_hashes, combined_hash
from transfer_jax.freezing.trees import FROZEN, leaves_by_path

_ALTERNATIVES = 3
"""Number of other boundaries that `Split.explain` shows."""


@dataclasses.dataclass(frozen=True)
class Feature:
    """An array that is computed once for each example.

    Attributes:
        shape: Its shape for one example.
        dtype: Name of its dtype.
        bytes: Its size for one example, in bytes.
        operation: The operation that computes it, with file and line.
    """

    shape: tuple[int, ...]
    dtype: str
    bytes: int
    operation: str


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a split, for each example.

    Attributes:
        bytes: Size of the features.
        prefix_flops: Floating-point operations of the prefix: matrix products and convolutions.
        suffix_flops: Those of one forward pass of the suffix.
        flops: Those of one forward pass of the whole function.
    """

    bytes: int
    prefix_flops: float
    suffix_flops: float
    flops: float


def split_frozen(
    function: Callable[..., Any],
    params: Any,
    labels: Any,
    batch: Any,
    *,
    key: Any = None,
    state: Any = None,
    flops_per_byte: float = math.inf,
) -> "Split":
    """Splits a function at the cheapest boundary between its frozen and its trainable part.

    The function is traced, and everything that depends on a trainable parameter, on the random key, on a state
    that changes, or on several examples at once belongs to the suffix, which each step computes. The rest is the
    prefix, which is computed once for each example. The boundary is the set of arrays with the fewest bytes per
    example that separates both (a minimum cut). Prefix and suffix together compute the same as the function.

    Example:
        >>> def function(params, state, batch, key):
        ...     hidden = jax.nn.relu(batch["x"] @ params["body"])
        ...     return hidden @ params["head"]
        >>> split = split_frozen(function, params, {"body": "frozen", "head": "head"}, batch)
        >>> features = split.prefix({"body": params["body"]}, batch)
        >>> outputs = split.suffix({"head": params["head"]}, {}, None, features, batch, None)

    Args:
        function: `function(params, state, batch, key)`, which returns outputs, or, if there is a state,
            `(outputs, new_state)` with a state of the same structure.
        params: A tree of parameters: arrays, or `jax.ShapeDtypeStruct`.
        labels: A tree of the same structure with a string for each parameter; `frozen` freezes it.
        batch: A tree of arrays or shapes with the examples on axis 0.
        key: A random key; None if the function uses none.
        state: A tree of arrays that are not trained, such as running statistics; None if there is none. Leaves
            that the function returns unchanged are frozen.
        flops_per_byte: Floating-point operations that cost as much as a cached byte of an example. Infinity
            repeats no matrix product, convolution or loop in each step.

    Raises:
        ValueError: If the labels do not fit the parameters, all or no parameters are trainable, a trainable parameter is
            unused, the arrays of the batch have no common first axis, the function has side effects or closes
            over large arrays, or a frozen part changes its running statistics.
    """
    signature = _signature(function, params, labels, batch, key, state)
    sizes = {len(leaf) if hasattr(leaf, "__len__") else leaf.shape[0] for leaf in jax.tree.leaves(batch)}
    examples = max(2, sizes.pop())
    first, other = SizedProgram(signature, examples), SizedProgram(signature, 2 * examples)
    if len(first.equations) != len(other.equations):
        other = None
    mixing = first.mark(other)
    _check_used(first, signature)
    _check_frozen_state(first)
    boundary = find_boundary(first, flops_per_byte)
    if boundary is None:
        boundary = Boundary(tuple(first.inputs["batch"].values()), math.inf)
    return Split(signature, first, boundary, mixing, flops_per_byte)


class Split:
    """A function that is split into a prefix, computed once for each example, and a suffix.

    Attributes:
        features: The arrays that the prefix computes and a cache stores, by name.
        inputs: Paths of the leaves of the batch that the suffix needs, such as the labels.
        mixing: The frozen operations that mix examples and are therefore computed in each step.
        cost: Bytes and operations for each example.
    """

    features: dict[str, Feature]
    inputs: tuple[str, ...]
    mixing: tuple[Cause, ...]
    cost: Cost

    def __init__(
        self,
        signature: Signature,
        program: SizedProgram,
        boundary: Boundary,
        mixing: Sequence[Cause],
        flops_per_byte: float,
    ) -> None:
        self._signature, self._program, self._flops_per_byte = signature, program, flops_per_byte
        self._boundary = boundary
        leaves = {variable: path for path, variable in program.inputs["batch"].items()}
        self.inputs = tuple(leaves[each] for each in boundary.variables if each in leaves)
        cached = [each for each in boundary.variables if each not in leaves]
        names = ["features"] if len(cached) == 1 else [f"features_{index}" for index in range(len(cached))]
        self.features = {name: _feature(program, each) for name, each in zip(names, cached, strict=True)}
        self._layouts = [program.places[each] for each in cached]
        self._positions = _positions(program, cached)
        self.mixing = tuple(mixing)
        self._sizes = {program.examples: (program, cached)}
        prefix, suffix, whole = (sum(map(flops, each)) for each in self._parts(program, cached))
        self.cost = Cost(
            bytes=sum(each.bytes for each in self.features.values()),
            prefix_flops=prefix / program.examples,
            suffix_flops=suffix / program.examples,
            flops=whole / program.examples,
        )

    def prefix(self, frozen: Any, batch: Any, state: Any = None) -> dict[str, jax.Array]:
        """Computes the features of a batch of any size.

        Args:
            frozen: The frozen parameters: the tree of all parameters without the trainable ones, or with None in
                their place.
            batch: The batch; leaves that the prefix does not need may be missing.
            state: The state; None if there is none.

        Returns:
            The features by name, with the examples on axis 0.
        """
        examples = _examples_of(batch)
        program, cached = self._sized(examples)
        equations, _, _ = self._parts(program, cached)
        values = self._values(program, params=frozen, batch=batch, state=state)
        results = _evaluate(equations, cached, values, "the prefix")
        return {
            name: _examples_first(value, layout, examples)
            for name, value, layout in zip(self.features, results, self._layouts, strict=True)
        }

    def suffix(
        self, trainable: Any, frozen: Any, state: Any, features: Mapping[str, jax.Array], batch: Any, key: Any
    ) -> Any:
        """Computes what the function returns, from features.

        Args:
            trainable: The trainable parameters: the tree of all parameters without the frozen ones, or with None
                in their place.
            frozen: The frozen parameters; only those that the suffix needs must be there.
            state: The state; None if there is none.
            features: The result of `prefix` for the same examples.
            batch: The batch; only the leaves in `inputs` must be there.
            key: The random key; None if there is none.
        """
        arrays = [*features.values(), *jax.tree.leaves(batch)]
        program, cached = self._sized(arrays[0].shape[0])
        _, equations, _ = self._parts(program, cached)
        values = self._values(
            program,
            params={**leaves_by_path(frozen), **leaves_by_path(trainable)},
            batch=batch,
            state=state,
            key=key,
        )
        for name, variable, layout in zip(self.features, cached, self._layouts, strict=True):
            values[variable] = _examples_back(features[name], layout, variable.aval.shape)
        results = _evaluate(equations, program.program.outputs, values, "the suffix")
        return jax.tree.unflatten(jax.tree.structure(program.results), results)

    def digest(self, frozen: Any, state: Any = None) -> str:
        """Returns a hash of the prefix: of its operations, and of the values of its parameters and its state.

        Args:
            frozen: The frozen parameters, as for `prefix`.
            state: The state; None if there is none.
        """
        program, cached = self._sized(self._program.examples)
        equations, _, _ = self._parts(program, cached)
        used = {atom for each in equations for atom in each.invars if not is_literal(atom)}
        arrays = {
            f"{argument}/{path}": value
            for argument, tree in (("params", frozen), ("state", state))
            for path, value in leaves_by_path(tree).items()
            if program.inputs[argument].get(path) in used
        }
        text = as_text([*program.program.inputs, *program.program.constants], cached, equations)
        constants = {
            str(index): jnp.asarray(each) for index, each in enumerate(program.program.constants.values())
        }
        parts = (
            re.sub(r"0x[0-9a-f]+", "", text),
            combined_hash(array_hashes(arrays)),
            *array_hashes(constants).values(),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def explain(self) -> str:
        """Returns a table: what is cached, what keeps the boundary from being higher, and other boundaries."""
        from transfer_jax.freezing.function_split.explanation import explain

        return explain(self)

    def causes(self) -> list[Cause]:
        """Returns the reasons why the operations behind the boundary are computed in each step, each once."""
        program = self._program
        behind = set(self._boundary.variables)
        _, suffix, _ = self._parts(program, [each for each in behind if each in program.program.makers])
        found = []
        for equation in suffix:
            if any(program.is_per_example(each) for each in equation.invars if not is_literal(each)):
                cause = program.program.cause(equation.outvars)
                if cause is not None:
                    found.append(dataclasses.replace(cause, source=cause.source or source_of(equation)))
        unique = {}
        for cause in found:
            unique.setdefault(cause.text, cause)
        return [*unique.values()]

    @functools.cached_property
    def alternatives(self) -> list[tuple[float, tuple[Feature, ...]]]:
        """Other boundaries, cheapest first: the price in bytes per example, and the features."""
        found, excluded = [], set(self._boundary.variables)
        program = self._program
        batch = set(program.inputs["batch"].values())
        for _ in range(_ALTERNATIVES):
            boundary = find_boundary(program, self._flops_per_byte, excluded - batch)
            if boundary is None or {*boundary.variables} <= batch:
                break
            cached = [each for each in boundary.variables if each not in batch]
            found.append((boundary.price, tuple(_feature(program, each) for each in cached)))
            excluded |= {*boundary.variables}
        return found

    def _sized(self, examples: int) -> tuple[SizedProgram, list[Var]]:
        """Returns the program for a batch size, and the variables of the features in it."""
        if examples not in self._sizes:
            program = SizedProgram(self._signature, examples)
            names = [each.primitive.name for each in program.equations]
            if names != [each.primitive.name for each in self._program.equations]:
                raise ValueError(
                    f"the function runs other operations for {examples} examples than for "
                    f"{self._program.examples}; use batches of one size"
                )
            cached = [program.equations[number].outvars[result] for number, result in self._positions]
            self._sizes[examples] = (program, cached)
        return self._sizes[examples]

    def _parts(self, program: SizedProgram, cached: Sequence[Var]) -> tuple[list, list, list]:
        """Returns the equations of the prefix, of the suffix, and of the whole function."""
        equations, outputs = program.equations, program.program.outputs
        return live_equations(equations, cached), live_equations(equations, outputs, cached), equations

    def _values(self, program: SizedProgram, **trees: Any) -> dict[Var, Any]:
        """Returns the values of the program's inputs and constants that are there."""
        values = dict(program.program.constants)
        for argument, tree in trees.items():
            given = tree if argument == "params" and _is_flat(tree) else leaves_by_path(tree)
            for path, variable in program.inputs[argument].items():
                if path in given:
                    values[variable] = given[path]
        return values


def _is_flat(tree: Any) -> bool:
    return isinstance(tree, dict) and all(not isinstance(each, (dict, list, tuple)) for each in tree.values())


def _signature(
    function: Callable[..., Any], params: Any, labels: Any, batch: Any, key: Any, state: Any
) -> Signature:
    paths, names = leaves_by_path(params), leaves_by_path(labels)
    if {*paths} != {*names}:
        differing = sorted({*paths} ^ {*names})
        raise ValueError(
            f"the labels do not fit the parameters; {len(differing)} paths differ: {differing[:3]}"
        )
    trainable = frozenset(path for path, label in names.items() if label != FROZEN)
    if not trainable:
        raise ValueError("all parameters are frozen; give at least one of them another label")
    leaves = leaves_by_path(batch)
    sizes = {path: leaf.shape[0] if getattr(leaf, "shape", ()) else None for path, leaf in leaves.items()}
    if len({*sizes.values()}) != 1 or None in sizes.values():
        raise ValueError(
            f"all arrays of the batch must have the examples on axis 0; the sizes of axis 0 are {sizes}"
        )
    return Signature(function, params, trainable, state, batch, key)


def _check_used(program: SizedProgram, signature: Signature) -> None:
    used = {atom for each in program.equations for atom in each.invars if not is_literal(atom)}
    used |= {each for each in program.program.outputs if not is_literal(each)}
    unused = [path for path in sorted(signature.trainable) if program.inputs["params"][path] not in used]
    if unused:
        raise ValueError(
            f"{len(unused)} trainable parameters do not affect the outputs, such as {unused[0]!r}; freeze them"
        )


def _check_frozen_state(program: SizedProgram) -> None:
    """Raises if the state changes by operations that depend on the batch and on no trainable parameter."""
    if not program.moving:
        return
    of_batch = program.depends_on_batch()
    count = len(program.inputs["state"])
    results = program.program.outputs[-count:]
    for path, result in zip(program.inputs["state"], results, strict=True):
        if path not in program.moving or is_literal(result) or result not in of_batch:
            continue
        cause = program.program.causes.get(result)
        if cause is None or not cause.trainable:
            source = source_of(program.program.makers[result])
            raise ValueError(
                f"the frozen part changes the state {path} ({source}); switch its layers to inference mode, for "
                "example with `module.eval()` or `use_running_average=True`"
            )


def _feature(program: SizedProgram, variable: Var) -> Feature:
    layout = program.places[variable]
    assert isinstance(layout, PerExample)
    maker = program.program.makers[variable]
    shape = jax.eval_shape(
        functools.partial(_examples_first, layout=layout, examples=program.examples),
        jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype),
    ).shape
    return Feature(
        shape=tuple(shape[1:]),
        dtype=str(variable.aval.dtype),
        bytes=bytes_per_example(program, variable),
        operation=f"{maker.primitive.name} at {source_of(maker)}",
    )


def _positions(program: SizedProgram, variables: Sequence[Var]) -> list[tuple[int, int]]:
    """Returns the number of the equation of each variable, and the position among its results."""
    found = {
        result: (number, index)
        for number, equation in enumerate(program.equations)
        for index, result in enumerate(equation.outvars)
    }
    return [found[each] for each in variables]


def _evaluate(
    equations: Sequence[Any], results: Sequence[Any], values: Mapping[Var, Any], part: str
) -> list[Any]:
    made = {each for equation in equations for each in equation.outvars}
    needed = {atom for each in equations for atom in each.invars if not is_literal(atom)}
    needed |= {each for each in results if not is_literal(each)}
    missing = [each for each in needed if each not in made and each not in values]
    if missing:
        raise ValueError(
            f"{len(missing)} inputs of {part} are missing, such as one of shape {missing[0].aval.shape}"
        )
    inputs = [each for each in values if each in needed and each not in made]
    return as_function(inputs, results, equations)(*(values[each] for each in inputs))


def _examples_of(batch: Any) -> int:
    leaves = jax.tree.leaves(batch)
    if not leaves:
        raise ValueError("the batch has no arrays")
    return leaves[0].shape[0]


def _examples_first(value: jax.Array, layout: PerExample, examples: int) -> jax.Array:
    """Returns an array with the examples on axis 0."""
    axis, shape = layout.axis, value.shape
    apart = value.reshape(*shape[:axis], layout.outer, examples, layout.inner, *shape[axis + 1 :])
    first = jnp.moveaxis(apart, axis + 1, 0)
    kept = [
        size
        for size, at in zip(first.shape[1:], range(1, first.ndim), strict=True)
        if not _is_unit(at, layout)
    ]
    return first.reshape(examples, *kept)


def _is_unit(position: int, layout: PerExample) -> bool:
    """Returns True if an axis, after the examples were moved to axis 0, is an added axis of size 1."""
    outer, inner = 1 + layout.axis, 2 + layout.axis
    return (position == outer and layout.outer == 1) or (position == inner and layout.inner == 1)


def _examples_back(value: jax.Array, layout: PerExample, shape: tuple[int, ...]) -> jax.Array:
    """Returns an array in the shape that the program has. The inverse of `_examples_first`."""
    axis, examples = layout.axis, value.shape[0]
    apart = value.reshape(examples, *shape[:axis], layout.outer, layout.inner, *shape[axis + 1 :])
    return jnp.moveaxis(apart, 0, axis + 1).reshape(shape)
