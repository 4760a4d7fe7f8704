"""The choice between cached features and images for a phase, from the config and the sizes alone.

It does not depend on measured times, so that a resumed run and all processes of a run choose the same.
"""

import dataclasses

from transfer_jax.config import TrainConfig
from transfer_jax.counted import counted
from transfer_jax.features import RowFormat
from transfer_jax.freezing.phase import Phase
from transfer_jax.models import PRE_LOGITS
from transfer_jax.training.kept_epoch import validation_interval


@dataclasses.dataclass(frozen=True)
class Caching:
    """The choice for a phase.

    Attributes:
        boundary: The boundary whose features are cached; None if the phase trains on images.
        reason: The reason for the choice.
        rows: Number of rows in the caches of the phase, for training and validation images together.
        bytes: Disk space of these rows.
        passes: Number of images that pass the frozen prefix with a cache, and without one.
    """

    boundary: str | None
    reason: str
    rows: int = 0
    bytes: int = 0
    passes: tuple[int, int] = (0, 0)


def forbidden(config: TrainConfig, phase: Phase, boundary: str | None) -> str | None:
    """Returns the reason why the features of a phase cannot be cached at any size; None if they can.

    Args:
        config: The config.
        phase: One of its phases.
        boundary: End of the phase's frozen prefix; None if there is none.

    Raises:
        ValueError: If the phase requires a cache but cannot have one.
    """
    why = _forbidden(config, phase, boundary)
    if why and phase.cache == "require":
        raise ValueError(f"phase {phase.name!r} requires a cache, but {why}")
    return why


def choose_caching(
    config: TrainConfig,
    phase: Phase,
    boundary: str | None,
    *,
    images: tuple[int, int],
    row_format: RowFormat | None,
) -> Caching:
    """Chooses a cache for a phase if it can have one, its size is within the budget, and it saves work.

    Args:
        config: The config.
        phase: One of its phases.
        boundary: End of the phase's frozen prefix; None if there is none.
        images: Numbers of training and of validation images.
        row_format: The format of an image's features; None if there is no boundary.

    Raises:
        ValueError: If the phase requires a cache but cannot have one, or it is larger than the budget; or if
            the phase flips features that are not maps.
    """
    why = forbidden(config, phase, boundary)
    if why:
        return Caching(None, why)
    train, validation = images
    every = validation_interval(config, phase, validation)
    evaluations = 1 + ((phase.epochs - 1) // every if every else 0)
    rows = train * (phase.views or 1) + validation
    passes = (rows, train * phase.epochs + validation * evaluations)
    sizes = {"rows": rows, "bytes": rows * (row_format.row_bytes if row_format else 0), "passes": passes}
    if phase.cache == "off":
        return Caching(None, "the cache is off", **sizes)
    if sizes["bytes"] > config.feature_gigabytes * 1e9:
        why = (
            f"its features take {sizes['bytes'] / 1e9:.3g} GB, "
            f"more than feature_gigabytes={config.feature_gigabytes:g}"
        )
        if phase.cache == "require":
            raise ValueError(f"phase {phase.name!r} requires a cache, but {why}")
        return Caching(None, why, **sizes)
    if phase.cache == "auto" and passes[0] > passes[1]:
        epochs = counted(phase.epochs, "epoch")
        return Caching(None, f"{phase.views} views are more work than {epochs}", **sizes)
    if phase.feature_flips != "none" and row_format is not None:
        _check_flips(phase, boundary, row_format)
    return Caching(boundary, "its frozen part is a prefix", **sizes)


def _check_flips(phase: Phase, boundary: str | None, row_format: RowFormat) -> None:
    shapes = [each.shape for each in row_format.arrays.values()]
    row_shape = shapes[0] if len(shapes) == 1 else ()
    what = f"phase {phase.name!r} has feature_flips={phase.feature_flips!r}, but its features at {boundary!r}"
    if len(row_shape) != 3:
        raise ValueError(
            f"{what} have the shapes {shapes}; only maps (height, width, channels) can be flipped"
        )
    if phase.feature_flips == "turns" and row_shape[0] != row_shape[1]:
        raise ValueError(f"{what} have the shape {row_shape}; only square maps can be rotated")


def _forbidden(config: TrainConfig, phase: Phase, boundary: str | None) -> str | None:
    if boundary is None:
        return "its lowest block trains"
    if config.taps and boundary != PRE_LOGITS:
        return "its head reads all blocks (taps), and some of them train"
    if not phase.cacheable or (phase.augment and config.mixes):
        return "it augments each image again in each epoch (set `views`)"
    return None
