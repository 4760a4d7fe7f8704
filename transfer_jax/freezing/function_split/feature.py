"""The features of a split, and their cost."""

import dataclasses
import functools

import jax

from transfer_jax.freezing.function_split.boundary import bytes_per_example
from transfer_jax.freezing.function_split.examples import PerExample
from transfer_jax.freezing.function_split.jaxprs import Var
from transfer_jax.freezing.function_split.layouts import examples_first
from transfer_jax.freezing.function_split.sized_program import SizedProgram


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
        step_flops: Those of a training step: the forward pass of the suffix and its backward pass, which
            ends at the boundary.
        repeated_flops: Those of the frozen operations that the suffix repeats, because features behind them
            are larger.
        batch_bytes: Size of the arrays of the batch that the features replace.
    """

    bytes: int
    prefix_flops: float
    suffix_flops: float
    flops: float
    step_flops: float
    repeated_flops: float
    batch_bytes: int


def feature_of(program: SizedProgram, variable: Var) -> Feature:
    """Returns the description of a variable of a boundary."""
    layout = layout_of(program, variable)
    maker = program.program.makers[variable]
    shape = jax.eval_shape(
        functools.partial(examples_first, layout=layout, examples=program.examples),
        jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype),
    ).shape
    return Feature(
        shape=tuple(shape[1:]),
        dtype=str(variable.aval.dtype),
        bytes=bytes_per_example(program, variable),
        operation=f"{maker.primitive.name} at {program.program.source(maker)}",
    )


def layout_of(program: SizedProgram, variable: Var) -> PerExample:
    """Returns the place of the examples in a variable of a boundary."""
    layout = program.places[variable]
    assert isinstance(layout, PerExample)  # Only such variables are part of a boundary.
    return layout
