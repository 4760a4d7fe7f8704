"""The split of any JAX function into a frozen part, computed once per example, and a trainable part."""

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.freezing.freeze_check import array_hashes, combined_hash
from transfer_jax.freezing.function_split.boundary import Boundary, bytes_per_example, find_boundary
from transfer_jax.freezing.function_split.checks import check_frozen_state, check_used, checked_signature
from transfer_jax.freezing.function_split.divided_program import DividedProgram, evaluate, positions_of
from transfer_jax.freezing.function_split.feature import Cost, Feature, feature_of, layout_of
from transfer_jax.freezing.function_split.jaxprs import Var, as_text, flops, is_literal
from transfer_jax.freezing.function_split.layouts import examples_back, examples_first
from transfer_jax.freezing.function_split.program import Cause, live_equations
from transfer_jax.freezing.function_split.sized_program import Signature, SizedProgram
from transfer_jax.freezing.function_split.step_flops import step_flops
from transfer_jax.freezing.trees import leaves_by_path

_LARGEST_REPEAT = 0.2
"""Part of a step that may be repeated to cache nothing. Texts are small, and encoding them is not."""


def split_frozen(
    function: Callable[..., Any],
    params: Any,
    labels: Any,
    batch: Any,
    *,
    key: Any = None,
    state: Any = None,
    flops_per_byte: float | None = None,
) -> "Split":
    """Splits a function at the cheapest boundary between its frozen and its trainable part.

    The function is traced, and everything that depends on a trainable parameter, on the random key, on a
    state that changes, or on several examples at once belongs to the suffix, which each step computes. The
    rest is the prefix, which is computed once for each example. The boundary is the set of arrays with the
    fewest bytes per example that separates both (a minimum cut). Prefix and suffix together compute the
    same as the function.

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
        state: A tree of arrays that are not trained, such as running statistics; None if there is none.
            Leaves that the function returns unchanged are frozen.
        flops_per_byte: Floating-point operations that cost as much as a cached byte of an example. Infinity
            repeats no matrix product, convolution or loop in each step. None repeats those that make the
            features smaller, such as all of them by a fifth of a step, and half of them by a tenth.

    Raises:
        ValueError: If the labels do not fit the parameters, all or no parameters are trainable, a trainable
            parameter is unused, the arrays of the batch have no common first axis, the function has side
            effects or closes over large arrays, or a frozen part changes its running statistics.
    """
    signature = checked_signature(function, params, labels, batch, key, state)
    examples = max(2, jax.tree.leaves(batch)[0].shape[0])
    first, other = SizedProgram(signature, examples), SizedProgram(signature, 2 * examples)
    if len(first.equations) != len(other.equations):
        other = None
    mixing = first.mark(other)
    check_used(first, signature.trainable)
    check_frozen_state(first)
    price = math.inf if flops_per_byte is None else flops_per_byte
    boundary = find_boundary(first, price)
    if boundary is None:
        boundary = Boundary(tuple(first.inputs["batch"].values()), math.inf)
    elif flops_per_byte is None:
        price = _balanced_price(first, boundary)
        boundary = find_boundary(first, price) or boundary
    return Split(signature, first, boundary, mixing, price)


def _balanced_price(program: SizedProgram, boundary: Boundary) -> float:
    """Returns the operations that cost as much as a cached byte: a part of a step for all of the features.

    A step counts as three forward passes. Operations on parameters alone do not count, because their number
    does not depend on the batch.
    """
    of_batch = program.depends_on_batch()
    suffix = live_equations(program.equations, program.program.outputs, boundary.variables)
    forward = sum(flops(each) for each in suffix if of_batch.intersection(each.outvars))
    step = 3 * forward / program.examples
    return _LARGEST_REPEAT * step / boundary.price if step and boundary.price else math.inf


class Split:
    """A function that is split into a prefix, computed once for each example, and a suffix.

    Attributes:
        features: The arrays that the prefix computes and a cache stores, by name.
        inputs: Paths of the leaves of the batch that the suffix needs, such as the labels.
        prefix_inputs: Shape and dtype of each leaf of the batch that the prefix needs, for one example, by
            path.
        mixing: The frozen operations that mix examples and are therefore computed in each step.
        cost: Bytes and operations for each example.
        signature: The function and its arguments.
        program: The program of the function.
        variables: The variables of the program at the boundary.
    """

    features: dict[str, Feature]
    inputs: tuple[str, ...]
    prefix_inputs: dict[str, jax.ShapeDtypeStruct]
    mixing: tuple[Cause, ...]
    cost: Cost
    signature: Signature
    program: SizedProgram

    def __init__(
        self,
        signature: Signature,
        program: SizedProgram,
        boundary: Boundary,
        mixing: Sequence[Cause],
        flops_per_byte: float,
    ) -> None:
        self.signature, self.program, self._flops_per_byte = signature, program, flops_per_byte
        self.variables = boundary.variables
        leaves = {variable: path for path, variable in program.inputs["batch"].items()}
        self.inputs = tuple(leaves[each] for each in boundary.variables if each in leaves)
        cached = [each for each in boundary.variables if each not in leaves]
        names = ["features"] if len(cached) == 1 else [f"features_{index}" for index in range(len(cached))]
        self.features = {name: feature_of(program, each) for name, each in zip(names, cached, strict=True)}
        self._layouts = [layout_of(program, each) for each in cached]
        self._positions = positions_of(program, cached)
        self.mixing = tuple(mixing)
        parts = DividedProgram.of(program, cached)
        self._sizes = {program.examples: parts}
        used = {atom for each in parts.prefix for atom in each.invars if not is_literal(atom)}
        self.prefix_inputs = {
            path: jax.ShapeDtypeStruct(variable.aval.shape[1:], variable.aval.dtype)
            for path, variable in program.inputs["batch"].items()
            if variable in used
        }
        self.cost = Cost(
            bytes=sum(each.bytes for each in self.features.values()),
            prefix_flops=sum(map(flops, parts.prefix)) / program.examples,
            suffix_flops=sum(map(flops, parts.suffix)) / program.examples,
            flops=sum(map(flops, program.equations)) / program.examples,
            step_flops=step_flops(
                parts.suffix, (program.inputs["params"][path] for path in signature.trainable)
            )
            / program.examples,
            repeated_flops=sum(
                flops(each) for each in parts.suffix if any(map(program.is_per_example, each.outvars))
            )
            / program.examples,
            batch_bytes=sum(
                bytes_per_example(program, each)
                for each in {atom for one in parts.prefix for atom in one.invars if not is_literal(atom)}
                if each in leaves and each not in boundary.variables
            ),
        )

    def prefix(self, frozen: Any, batch: Any, state: Any = None) -> dict[str, jax.Array]:
        """Computes the features of a batch of any size.

        Args:
            frozen: The frozen parameters: the tree of all parameters without the trainable ones, or with
                None in their place.
            batch: The batch; leaves that the prefix does not need may be missing.
            state: The state; None if there is none.

        Returns:
            The features by name, with the examples on axis 0.
        """
        examples = _examples_of(batch)
        parts = self._sized(examples)
        values = self._values(parts.program, params=frozen, batch=batch, state=state)
        results = evaluate(parts.program, parts.prefix, parts.cached, values, "the prefix")
        return {
            name: examples_first(value, layout, examples)
            for name, value, layout in zip(self.features, results, self._layouts, strict=True)
        }

    def suffix(
        self, trainable: Any, frozen: Any, state: Any, features: Mapping[str, Any], batch: Any, key: Any
    ) -> Any:
        """Computes what the function returns, from features.

        Args:
            trainable: The trainable parameters: the tree of all parameters without the frozen ones, or with
                None in their place.
            frozen: The frozen parameters; only those that the suffix needs must be there.
            state: The state; None if there is none.
            features: The result of `prefix` for the same examples.
            batch: The batch; only the leaves in `inputs` must be there.
            key: The random key; None if there is none.
        """
        arrays = [*features.values(), *jax.tree.leaves(batch)]
        parts = self._sized(arrays[0].shape[0])
        program = parts.program
        values = self._values(
            program,
            params={**leaves_by_path(frozen), **leaves_by_path(trainable)},
            batch=batch,
            state=state,
            key=key,
        )
        for name, variable, layout in zip(self.features, parts.cached, self._layouts, strict=True):
            values[variable] = examples_back(features[name], layout, variable.aval.shape)
        outputs = program.program.outputs
        results = evaluate(program, parts.suffix, outputs, values, "the suffix")
        results = [
            jnp.asarray(result, atom.aval.dtype) if is_literal(atom) else result
            for atom, result in zip(outputs, results, strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(program.results), results)

    def digest(self, frozen: Any, state: Any = None) -> str:
        """Returns a hash of the prefix: of its operations, and of the values of its parameters and its state.

        It does not depend on the batch size of the split, unless the function runs other operations for two
        examples.

        Args:
            frozen: The frozen parameters, as for `prefix`.
            state: The state; None if there is none.
        """
        parts = self._of_size(2) or self._sizes[self.program.examples]
        program = parts.program
        used = {atom for each in parts.prefix for atom in each.invars if not is_literal(atom)}
        arrays = {
            f"{argument}/{path}": value
            for argument, tree in (("params", frozen), ("state", state))
            for path, value in leaves_by_path(tree).items()
            if program.inputs[argument].get(path) in used
        }
        inputs = [*program.program.inputs, *program.program.constants]
        text = as_text(inputs, parts.cached, parts.prefix)
        constants = {
            str(index): jnp.asarray(each) for index, each in enumerate(program.program.constants.values())
        }
        hashed = (
            re.sub(r"0x[0-9a-f]+", "", text),
            combined_hash(array_hashes(arrays)),
            *array_hashes(constants).values(),
        )
        return hashlib.sha256("\n".join(hashed).encode()).hexdigest()

    def explain(self) -> str:
        """Returns a text: the features, the reasons why the boundary is not higher, and other boundaries."""
        from transfer_jax.freezing.function_split.explanation import explain

        return explain(self)

    def causes(self) -> list[Cause]:
        """Returns the reasons why the operations behind the boundary are part of each step, each once."""
        program = self.program
        found: dict[str, Cause] = {}
        for equation in self._sizes[program.examples].suffix:
            if any(program.is_per_example(atom) for atom in equation.invars):
                cause = program.program.cause(equation.outvars)
                if cause is not None:
                    source = cause.source or program.program.source(equation)
                    found.setdefault(cause.text, dataclasses.replace(cause, source=source))
        return [*found.values()]

    def alternatives(self, count: int = 3) -> list[tuple[Feature, ...]]:
        """Returns the features of other boundaries without those of this one, cheapest first."""
        program, excluded, found = self.program, set(self.variables), []
        batch = set(program.inputs["batch"].values())
        while len(found) < count:
            boundary = find_boundary(program, self._flops_per_byte, excluded - batch)
            if boundary is None or {*boundary.variables} <= batch:
                break
            cached = [each for each in boundary.variables if each not in batch]
            found.append(tuple(feature_of(program, each) for each in cached))
            excluded |= {*boundary.variables}
        return found

    def _sized(self, examples: int) -> "DividedProgram":
        """Returns the parts of the program for a batch size.

        Raises:
            ValueError: If the function runs other operations for it.
        """
        parts = self._of_size(examples)
        if parts is None:
            raise ValueError(
                f"the function runs other operations for {examples} examples than for "
                f"{self.program.examples}; use batches of one size"
            )
        return parts

    def _of_size(self, examples: int) -> "DividedProgram | None":
        """Returns the parts of the program for a batch size; None if it has other operations."""
        if examples not in self._sizes:
            program = SizedProgram(self.signature, examples)
            names = [each.primitive.name for each in program.equations]
            if names != [each.primitive.name for each in self.program.equations]:
                return None
            cached = [program.equations[number].outvars[result] for number, result in self._positions]
            self._sizes[examples] = DividedProgram.of(program, cached)
        return self._sizes[examples]

    def _values(self, program: SizedProgram, **trees: Any) -> dict[Var, Any]:
        """Returns the values of the program's inputs and constants that are there."""
        values = dict(program.program.constants)
        for argument, tree in trees.items():
            given = leaves_by_path(tree)
            for path, variable in program.inputs[argument].items():
                if path in given:
                    values[variable] = given[path]
        return values


def _examples_of(batch: Any) -> int:
    leaves = jax.tree.leaves(batch)
    if not leaves:
        raise ValueError("the batch has no arrays")
    return leaves[0].shape[0]
