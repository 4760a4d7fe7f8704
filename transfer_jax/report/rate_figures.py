"""Figures of learning rates: blocks by epochs, colored by rate, and the loss against growing rates."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from transfer_jax.report.figure_text import drawing, labels
from transfer_jax.report.rate_timeline import Timeline, rate_span
from transfer_jax.report.save_figure import save_figure


def draw_timelines(timelines: Mapping[str, Timeline], path: Path) -> None:
    """Draws timelines side by side under their titles, with the same colors.

    Args:
        timelines: The timelines by title.
        path: The file, `.png` or `.svg`.

    Raises:
        ValueError: If the file has another suffix.
    """
    rows = max(len(timeline.blocks) for timeline in timelines.values())
    size = (5.5 * len(timelines) + 1, 1.5 + 0.22 * rows)
    found = np.concatenate([timeline.rates().ravel() for timeline in timelines.values()])
    low, high = rate_span(found)
    norm = LogNorm(low, high * 1.001)
    with drawing([name for timeline in timelines.values() for name in _names(timeline)]):
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(1, len(timelines), squeeze=False)[0]
        shown = [
            _draw(axes, title, timeline, norm)
            for axes, (title, timeline) in zip(panels, timelines.items(), strict=True)
        ]
        figure.colorbar(shown[0], ax=panels.tolist(), label="learning rate")
        save_figure(figure, path)


def draw_rate_curve(
    rates: Sequence[float], losses: Sequence[float], marked: Mapping[str, float], path: Path
) -> None:
    """Draws the loss against learning rates that grow.

    Args:
        rates: The learning rates.
        losses: The loss at each rate.
        marked: Rates to mark, by label.
        path: The file, `.png` or `.svg`.

    Raises:
        ValueError: If the file has another suffix.
    """
    with drawing(list(marked)):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes: Axes = figure.subplots()
        axes.plot(rates, losses)
        for index, (name, rate) in enumerate(marked.items()):
            axes.axvline(rate, color=f"C{index + 1}", linestyle=":", label=f"{labels([name])[0]}: {rate:.1e}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
        axes.legend()
        save_figure(figure, path)


def _names(timeline: Timeline) -> list[str]:
    return [*timeline.blocks, *dict.fromkeys(epoch.phase for epoch in timeline.epochs)]


def _draw(axes: Axes, title: str, timeline: Timeline, norm: LogNorm) -> AxesImage:
    """Draws one timeline and returns its image."""
    shown = axes.imshow(
        timeline.rates(), aspect="auto", origin="lower", norm=norm, cmap="viridis", interpolation="nearest"
    )
    axes.set_facecolor("#e8e8e8")
    axes.set(title=title, xlabel="epoch", yticks=range(len(timeline.blocks)))
    axes.set_yticklabels(labels(timeline.blocks), fontsize=7)
    names = [epoch.phase for epoch in timeline.epochs]
    starts = [index for index, name in enumerate(names) if index == 0 or name != names[index - 1]]
    axes.set_xticks(starts)
    short = labels([names[start] for start in starts])
    first = [f"{start + 1}: {name}" for start, name in zip(starts, short, strict=True)]
    axes.set_xticklabels(first, fontsize=7, rotation=35, ha="right", rotation_mode="anchor")
    for start in starts[1:]:
        axes.axvline(start - 0.5, color="white", linewidth=1.5)
    return shown
