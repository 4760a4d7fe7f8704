"""Sentences on the epochs that the phases of a run keep, as printed and in reports."""

from collections.abc import Mapping, Sequence
from typing import Any


def kept_epoch_text(phase: Mapping[str, Any]) -> str:
    """Returns a sentence on the epoch that a phase keeps; empty if it keeps the last one without a choice.

    Args:
        phase: The fields of its `PhaseResult`.
    """
    name, epochs, planned = f"phase {phase['name']!r}", phase.get("epochs", 0), phase.get("planned_epochs", 0)
    early = f"; it ended early, after {epochs} of {planned} epochs" if 0 < epochs < planned else ""
    value, end, start = (phase.get(f"{part}_value") for part in ("kept", "end", "start"))
    if not phase.get("kept_by") or value is None or end is None:
        return f"{name} keeps epoch {epochs}{early}" if early else ""
    score, kept, best = phase["kept_by"].replace("_", " "), phase["kept_epoch"], phase.get("gain_epoch")
    gains = _gains(phase)
    if gains and kept != best:
        found = _unclear(gains)
        if kept == 0:
            return f"{name} is undone: epoch {best} of {epochs} is the best one, but {found}{early}"
        last = f"{name} keeps its last epoch, {kept}: {score} {value:.4g}"
        return f"{last}; epoch {best} is better, but {found}"
    if kept == 0:
        trained = f"none of its {epochs} epochs has" if epochs != 1 else "its epoch does not have"
        found = f"{value:.4g} before it ({end:.4g} after the last one)"
        return f"{name} is undone: {trained} a better {score} than {found}{early}"
    clear = f" (a gain of {' and '.join(gains)})" if gains else ""
    before = "" if start is None else f", {start:.4g} before the phase{clear}"
    after = "" if kept == epochs else f", {end:.4g} after the last epoch{'' if before else clear}"
    return f"{name} keeps epoch {kept} of {epochs}: {score} {value:.4g}{before}{after}{early}"


def _gains(phase: Mapping[str, Any]) -> list[str]:
    """Returns the gains that decide, with their standard errors; none if the phase has none.

    That in the headline score has its name.
    """
    if (gain := phase.get("gain")) is None:
        return []
    found = [f"{gain:.2g} ± {phase['gain_error']:.2g}"]
    if phase.get("headline_gain_error"):
        found[0] += f" in {phase['kept_by'].replace('_', ' ')}"
        error = f"{phase['headline_gain_error']:.2g}"
        found.append(f"{phase['headline_gain']:.2g} ± {error} in {phase['headline'].replace('_', ' ')}")
    return found


def _unclear(gains: Sequence[str]) -> str:
    """Returns a part of a sentence on gains that are not clear."""
    if len(gains) == 1:
        return f"its gain of {gains[0]} is not above two standard errors"
    return f"its gains of {' and '.join(gains)} are not above two standard errors"
