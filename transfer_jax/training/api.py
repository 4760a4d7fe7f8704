"""The shortest way in."""

from pathlib import Path
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.report.progress import Progress
from transfer_jax.training.fitting import fit
from transfer_jax.training.result import Result


def fine_tune(
    model: str, images: str | Path, *, workdir: str | Path, progress: Progress | None = None, **settings: Any
) -> Result:
    """Adapts a pretrained network to a set of images, by default in the five steps of fine-tuning.

    Args:
        model: Name of the network (see `model_names`).
        images: A folder with a subfolder of images a class, or another source that `TrainConfig` knows.
        workdir: Folder for checkpoints, metrics, pictures and the trained model. The same call goes on where
            an earlier one was stopped.
        progress: Where to report to.
        **settings: Any other field of `TrainConfig`.

    Returns:
        What was done, with the scores on the images held out.
    """
    return fit(TrainConfig(model=model, images=str(images), **settings), workdir, progress=progress)
