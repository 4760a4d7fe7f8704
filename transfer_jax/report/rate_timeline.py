"""The learning rates of a schedule by block and epoch, as numbers and as text."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from transfer_jax.report.metrics_log import read_metrics
from transfer_jax.storage import workdir_files

_SHADES = "░▒▓█"
_COLOURS = ("#3b528b", "#21918c", "#5ec962", "#fde725")
"""Colors of the shades, from the lowest rates to the highest."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The learning rates in one epoch.

    Attributes:
        phase: Name of the phase.
        epoch: Number of the epoch in the phase, from 1.
        rates: Mean learning rate of each trainable block, by name.
    """

    phase: str
    epoch: int
    rates: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The learning rates in all epochs of a schedule.

    Attributes:
        blocks: All blocks with parameters, input side first, the head last.
        epochs: The epochs of all phases in order.
    """

    blocks: tuple[str, ...]
    epochs: tuple[Epoch, ...]

    @classmethod
    def executed(cls, workdir: Path, blocks: Sequence[str]) -> "Timeline":
        """Returns the timeline of a run as it was executed, from its log."""
        lines = [line for line in read_metrics(workdir / workdir_files.METRICS) if line["kind"] == "train"]
        return cls(tuple(blocks), tuple(Epoch(x["phase"], x["epoch"], x["rates"]) for x in lines))

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the epochs as JSON values, the rates with five digits."""
        return [
            {
                **dataclasses.asdict(each),
                "rates": {block: float(f"{rate:.5g}") for block, rate in each.rates.items()},
            }
            for each in self.epochs
        ]

    @classmethod
    def from_json(cls, blocks: Sequence[str], epochs: Sequence[Mapping[str, Any]]) -> "Timeline":
        """Returns the timeline from its blocks and the result of `to_json`."""
        return cls(tuple(blocks), tuple(Epoch(**epoch) for epoch in epochs))

    def rates(self) -> np.ndarray:
        """Returns the rates, `(blocks, epochs)`; nan for frozen blocks."""
        found = np.full((len(self.blocks), len(self.epochs)), np.nan)
        for column, epoch in enumerate(self.epochs):
            for block, rate in epoch.rates.items():
                found[self.blocks.index(block), column] = rate if rate > 0 else np.nan
        return found


def timeline_text(timeline: Timeline, width: int) -> Text:
    """Returns a timeline for a terminal: one line for each block, the head on top, one character an epoch.

    Args:
        timeline: The timeline.
        width: Number of characters in a line; if there are more epochs, several share a character.
    """
    margin = max(map(len, timeline.blocks)) + 1
    rates = timeline.rates()
    columns = np.array_split(np.arange(rates.shape[1]), min(rates.shape[1], max(width - margin, 1)))
    low, high = rate_span(rates)
    text = Text(no_wrap=True)
    for row in range(len(timeline.blocks) - 1, -1, -1):
        text.append(f"{timeline.blocks[row]:<{margin}}")
        for column in columns:
            values = rates[row, column]
            values = values[~np.isnan(values)]
            if not len(values):
                text.append("·", style="dim")
                continue
            share = math.log(values.mean() / low) / math.log(high / low) if high > low else 1.0
            level = min(max(int(share * len(_SHADES)), 0), len(_SHADES) - 1)
            text.append(_SHADES[level], style=_COLOURS[level])
        text.append("\n")
    steps = [low * (high / low) ** (index / len(_SHADES)) for index in range(len(_SHADES))]
    text.append(" " * margin + "· frozen")
    for shade, colour, step in zip(_SHADES, _COLOURS, steps, strict=True):
        text.append(f"  {shade}", style=colour)
        text.append(f" from {step:.1e}")
    return text


def rate_span(rates: np.ndarray) -> tuple[float, float]:
    """Returns the lowest and the highest rate, the lowest at least a ten-thousandth of the highest."""
    high = float(np.nanmax(rates))
    return max(float(np.nanmin(rates)), high * 1e-4), high
