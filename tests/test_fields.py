"""Conversions of arguments, and the functions that take one name or several."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transfer_jax.diagnostics.diagnosis import diagnose
from transfer_jax.fields import as_tuple, convert_fields
from transfer_jax.freezing import Phase, Schedule, blocks, head, labels, match, top
from transfer_jax.freezing.recipes import freezeout, gradual_unfreezing
from transfer_jax.freezing.selectors import parse
from transfer_jax.runs.model_soup import soup

ONE: Any = "stages.1"
THREE: Any = np.int64(3)
PATHS = ["backbone/stages.1/kernel", "backbone/stages.2/kernel", "head/kernel"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("stages.2", ("stages.2",)),
        (b"x", (b"x",)),
        (Path("runs", "a"), (Path("runs", "a"),)),
        (3, (3,)),
        (np.array(3), (3,)),
        (["a", "b"], ("a", "b")),
        ((name for name in "ab"), ("a", "b")),
        (np.array([3, 4]), (3, 4)),
        ((), ()),
    ],
)
def test_one_value_is_a_tuple_of_one(values, expected):
    assert as_tuple(values) == expected


@dataclasses.dataclass(frozen=True)
class Example:
    """Fields of several types."""

    name: str | None = None
    pair: tuple[float, float] = (0.0, 1.0)
    other: Any = None

    def __post_init__(self) -> None:
        convert_fields(self, Example)


def test_fields_are_converted():
    example: Any = Example(name=Path("a"), pair=[np.float64(0.5), 1], other=[1])  # type: ignore[arg-type]
    assert (example.name, example.pair, example.other) == ("a", (0.5, 1), [1])
    assert type(example.pair[0]) is float
    with pytest.raises(ValueError, match=r"pair must have 2 values, got 0.5"):
        Example(pair=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"name must be a string, got array.* of type ndarray"):
        Example(name=np.zeros(99))  # type: ignore[arg-type]


def test_numbers_of_a_phase_are_converted():
    rate: Any = np.float32(0.5)
    phase: Any = Phase(name="a", train=head, epochs=THREE, learning_rate=rate, groups=ONE)
    assert (phase.epochs, phase.learning_rate, phase.groups) == (3, 0.5, ("stages.1",))
    phases: Any = [phase]
    assert Schedule.from_json(Schedule(phase).to_json()) == Schedule((phase,)) == Schedule(phases)
    with pytest.raises(ValueError, match="phase 'a': epochs must be a whole number, got '3'"):
        dataclasses.replace(phase, epochs="3")
    with pytest.raises(ValueError, match="a schedule is made of phases, got 'head'"):
        Schedule("head")  # type: ignore[arg-type]


def test_selectors_take_lists_and_numpy_integers():
    assert blocks(["stages.1", "head"]) == blocks("stages.1", "head")
    assert parse(top(THREE)) == top(3)


@pytest.mark.parametrize("block_names", ["stages.2", ["stages.2"]])
def test_labels_take_one_block_and_an_expression(block_names):
    found = labels(PATHS[1:], "head", block_names)
    assert found == labels(PATHS[1:], head, block_names)
    assert found[PATHS[2]] == "head"
    assert labels(PATHS, match("stages"), ["stages.1", "stages.2"])[PATHS[0]] == "stages.1"


def test_recipes_take_one_block():
    assert freezeout("stages.1") == freezeout(["stages.1"])
    assert gradual_unfreezing("stages.1") == gradual_unfreezing(["stages.1"])


def test_names_are_never_letters(tmp_path):
    with pytest.raises(ValueError, match="unknown diagnostic 'calibrations'"):
        diagnose(tmp_path, only="calibrations")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no-run"):
        soup(str(tmp_path / "no-run"), "photos", tmp_path / "out")
    with pytest.raises(ValueError, match="at least one run"):
        soup([], "photos", tmp_path / "out")
