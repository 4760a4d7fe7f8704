"""Sentences on the epochs that the phases of a run keep, as printed and in reports."""

from collections.abc import Mapping
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
    score, kept = phase["kept_by"].replace("_", " "), phase["kept_epoch"]
    gain, error, best = (phase.get(field) for field in ("gain", "gain_error", "gain_epoch"))
    if gain is not None and kept != best:
        found = f"gain of {gain:.2g} in {score} is not above twice its standard error of {error:.2g}"
        if kept == 0:
            return f"{name} is undone: epoch {best} of {epochs} is the best one, and its {found}{early}"
        last = f"{name} keeps its last epoch, {kept}: {score} {value:.4g}"
        return f"{last}; epoch {best} is better, but its {found}"
    if kept == 0:
        trained = f"none of its {epochs} epochs has" if epochs != 1 else "its epoch does not have"
        found = f"{value:.4g} before it ({end:.4g} after the last one)"
        return f"{name} is undone: {trained} a better {score} than {found}{early}"
    clear = "" if gain is None else f" (a gain of {gain:.2g} ± {error:.2g})"
    before = "" if start is None else f", {start:.4g} before the phase{clear}"
    after = "" if kept == epochs else f", {end:.4g} after the last epoch{'' if before else clear}"
    return f"{name} keeps epoch {kept} of {epochs}: {score} {value:.4g}{before}{after}{early}"
