"""Weights & Biases; `WANDB_PROJECT`, `WANDB_MODE=offline` and its other variables count."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.report.trackers.tracker import PROJECT


class WeightsAndBiases:
    """A run at Weights & Biases.

    Args:
        run: What `wandb.init` gave.
    """

    def __init__(self, run: Any) -> None:
        self.id: str = run.id
        self._run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def log_image(self, step: int, path: Path) -> None:
        import wandb

        self._run.log({path.stem: wandb.Image(str(path))}, step=step)

    def close(self, *, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)


def open_run(workdir: Path, config: Mapping[str, Any], known: str | None) -> WeightsAndBiases:
    """Begins a run, or goes on with the one known."""
    import wandb

    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=workdir.resolve().name,
        id=known,
        resume="allow",
        dir=str(workdir),
        config=dict(config),
        settings=wandb.Settings(console="off"),  # Or else it copies every redrawn bar.
    )
    return WeightsAndBiases(run)
