"""Pictures of learning rates: blocks by epochs, coloured by rate, and the loss along a ramp of rates."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from rich.text import Text

from transfer_jax.report.metrics import read_metrics
from transfer_jax.report.save_figure import save_figure
from transfer_jax.storage import workdir_files

_SHADES = "░▒▓█"
_COLOURS = ("#3b528b", "#21918c", "#5ec962", "#fde725")
"""From the lowest rates to the highest; the four shades say the same without colours."""


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What trains in one epoch.

    Attributes:
        phase: Name of the phase.
        epoch: Number of the epoch in the phase, from 1.
        rates: From block to its mean learning rate; a block that is frozen is not there.
    """

    phase: str
    epoch: int
    rates: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """A schedule by epochs.

    Attributes:
        blocks: All blocks with parameters, input side first, the head last.
        epochs: The epochs of all phases in order.
    """

    blocks: tuple[str, ...]
    epochs: tuple[Epoch, ...]

    @classmethod
    def executed(cls, workdir: Path, blocks: Sequence[str]) -> "Timeline":
        """The timeline of a run as it was, from its log."""
        lines = [line for line in read_metrics(workdir / workdir_files.METRICS) if line["kind"] == "train"]
        return cls(tuple(blocks), tuple(Epoch(x["phase"], x["epoch"], x["rates"]) for x in lines))

    def to_json(self) -> list[dict[str, Any]]:
        """The epochs as plain JSON values, the rates with five digits."""
        return [
            {
                **dataclasses.asdict(each),
                "rates": {block: float(f"{rate:.5g}") for block, rate in each.rates.items()},
            }
            for each in self.epochs
        ]

    @classmethod
    def from_json(cls, blocks: Sequence[str], epochs: Sequence[Mapping[str, Any]]) -> "Timeline":
        """Reads what `to_json` gave."""
        return cls(tuple(blocks), tuple(Epoch(**epoch) for epoch in epochs))

    def rates(self) -> np.ndarray:
        """The rates `(blocks, epochs)`; nan where a block is frozen."""
        found = np.full((len(self.blocks), len(self.epochs)), np.nan)
        for column, epoch in enumerate(self.epochs):
            for block, rate in epoch.rates.items():
                found[self.blocks.index(block), column] = rate if rate > 0 else np.nan
        return found


def draw_timelines(timelines: Mapping[str, Timeline], path: Path) -> None:
    """Draws timelines side by side under their titles.

    Args:
        timelines: By title; their colours are comparable.
        path: The file, `.png` or `.svg`.

    Raises:
        ValueError: If the file's name ends otherwise.
    """
    rows = max(len(timeline.blocks) for timeline in timelines.values())
    size = (5.5 * len(timelines) + 1, 1.5 + 0.22 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(timelines), squeeze=False)[0]
    found = np.concatenate([timeline.rates().ravel() for timeline in timelines.values()])
    low, high = _span(found)
    norm = LogNorm(low, high * 1.001)
    shown = [
        _draw(axes, title, timeline, norm)
        for axes, (title, timeline) in zip(panels, timelines.items(), strict=True)
    ]
    figure.colorbar(shown[0], ax=panels.tolist(), label="learning rate")
    save_figure(figure, path)


def draw_rate_curve(
    rates: Sequence[float], losses: Sequence[float], marked: Mapping[str, float], path: Path
) -> None:
    """Draws the loss along a ramp of learning rates.

    Args:
        rates: The rates.
        losses: The loss at each.
        marked: Rates to mark, by what they are.
        path: The file, `.png` or `.svg`; errors are those of `draw_timelines`.
    """
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes: Axes = figure.subplots()
    axes.plot(rates, losses)
    for index, (name, rate) in enumerate(marked.items()):
        axes.axvline(rate, color=f"C{index + 1}", linestyle=":", label=f"{name}: {rate:.1e}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
    axes.legend()
    save_figure(figure, path)


def _draw(axes: Axes, title: str, timeline: Timeline, norm: LogNorm):
    shown = axes.imshow(
        timeline.rates(), aspect="auto", origin="lower", norm=norm, cmap="viridis", interpolation="nearest"
    )
    axes.set_facecolor("#e8e8e8")
    axes.set(title=title, xlabel="epoch", yticks=range(len(timeline.blocks)))
    axes.set_yticklabels(timeline.blocks, fontsize=7)
    names = [epoch.phase for epoch in timeline.epochs]
    starts = [index for index, name in enumerate(names) if index == 0 or name != names[index - 1]]
    axes.set_xticks(starts)
    first = [f"{start + 1}: {names[start]}" for start in starts]
    axes.set_xticklabels(first, fontsize=7, rotation=35, ha="right", rotation_mode="anchor")
    for start in starts[1:]:
        axes.axvline(start - 0.5, color="white", linewidth=1.5)
    return shown


def timeline_text(timeline: Timeline, width: int) -> Text:
    """The timeline for a terminal: a line a block, the head on top, and a character an epoch.

    Args:
        timeline: What to show.
        width: Characters in a line; more epochs than that share characters.
    """
    margin = max(map(len, timeline.blocks)) + 1
    rates = timeline.rates()
    columns = np.array_split(np.arange(rates.shape[1]), min(rates.shape[1], max(width - margin, 1)))
    low, high = _span(rates)
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


def _span(rates: np.ndarray) -> tuple[float, float]:
    """The lowest and highest rate, the lowest not below a ten-thousandth of the highest."""
    high = float(np.nanmax(rates))
    return max(float(np.nanmin(rates)), high * 1e-4), high
