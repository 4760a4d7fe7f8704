"""The function `fine_tune`: a shortcut of `fit`, or the best model within a time."""

from pathlib import Path
from typing import Any, overload

from transfer_jax.config import TrainConfig
from transfer_jax.fields import as_tuple
from transfer_jax.report.progress import Progress
from transfer_jax.runs import Result, fit
from transfer_jax.search.budget import SearchRecord, train_within


@overload
def fine_tune(
    model: Any,
    images: str | Path,
    *,
    workdir: str | Path,
    budget: None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Result: ...


@overload
def fine_tune(
    model: Any,
    images: str | Path,
    *,
    workdir: str | Path,
    budget: str | float,
    progress: Progress | None = None,
    **settings: Any,
) -> SearchRecord: ...


def fine_tune(
    model: Any,
    images: str | Path,
    *,
    workdir: str | Path,
    budget: str | float | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Result | SearchRecord:
    """Fine-tunes a pretrained network on a set of images, by default in the five steps of fine-tuning.

    Example:
        >>> result = fine_tune("efficientnet_lite0", "photos/", workdir="runs/photos")
        >>> record = fine_tune(None, "photos/", workdir="runs/best", budget="10m")
        >>> classify("runs/best", ["new.jpg"])

    Args:
        model: Name of the network (see `model_names`), or a model of your own: an `nnx.Module`, or the result
            of `own_model`. With a budget, names of networks to choose from; None takes those whose weights
            are on this machine.
        images: A folder with one subfolder of images for each class, or another source that `TrainConfig`
            knows.
        workdir: Folder of checkpoints, metrics, plots and the trained model. The same call resumes a run
            that was stopped.
        budget: Wall time from this call on, such as `10m`, in which the best model is searched for: its
            network, head, trained blocks and learning rate. None trains one schedule.
        progress: Receives the progress of the run; None shows none.
        **settings: Any other fields of `TrainConfig`.

    Returns:
        The results of the phases, with the scores on the validation images; or the record of the search.

    Raises:
        ValueError: If a setting is invalid; with a budget, as `train_within`.
    """
    if budget is not None:
        if model is not None and not all(isinstance(name, str) for name in as_tuple(model)):
            raise ValueError("a budget needs names of networks; register_model gives your own model a name")
        config = TrainConfig(images=str(images), **settings)
        names = () if model is None else as_tuple(model)
        given = ("images", *settings)
        return train_within(config, budget, Path(workdir), given=given, networks=names, progress=progress)
    own = None if isinstance(model, str) else model
    named = {"model": model} if own is None else {}
    config = TrainConfig(**{**named, "images": images, **settings})
    return fit(config, workdir, progress=progress, model=own)
