"""Whether a phase trains on cached features, decided from the config and the sizes alone.

Not from measured times: a run that goes on, or another process of it, must decide the same.
"""

import dataclasses

from transfer_jax.config import TrainConfig
from transfer_jax.features import RowFormat
from transfer_jax.freezing.phase import Phase
from transfer_jax.models import PRE_LOGITS


@dataclasses.dataclass(frozen=True)
class Caching:
    """The choice for a phase.

    Attributes:
        boundary: The boundary whose features are cached; None if the phase trains on images.
        reason: Why it was chosen so.
        rows: Rows that the caches of the phase would hold, of training and of held-out images.
        bytes: Disk that they would take.
        passes: Images that the frozen prefix would see with a cache, and without one.
    """

    boundary: str | None
    reason: str
    rows: int = 0
    bytes: int = 0
    passes: tuple[int, int] = (0, 0)


def forbidden(config: TrainConfig, phase: Phase, boundary: str | None) -> str | None:
    """Why the features of a phase cannot be cached, whatever their size; None if they can.

    Args:
        config: The config.
        phase: One of its phases.
        boundary: End of the phase's frozen prefix; None if there is none.

    Raises:
        ValueError: If the phase requires a cache that cannot be.
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
    row_shape: tuple[int, ...],
    stored: str,
) -> Caching:
    """Chooses for a phase: a cache where it can be, fits the budget, and saves work.

    Args:
        config: The config.
        phase: One of its phases.
        boundary: End of the phase's frozen prefix; None if there is none.
        images: Training and held-out images.
        row_shape: Shape of an image's features.
        stored: What they are stored in.

    Raises:
        ValueError: If the phase requires a cache that cannot be, or is larger than the budget; or if it flips
            features that are no maps.
    """
    why = forbidden(config, phase, boundary)
    if why:
        return Caching(None, why)
    train, held_out = images
    evaluations = 1 + ((phase.epochs - 1) // config.eval_every if config.eval_every else 0)
    rows = train * (phase.views or 1) + held_out
    passes = (rows, train * phase.epochs + held_out * evaluations)
    sizes = {"rows": rows, "bytes": rows * RowFormat(row_shape, stored).row_bytes, "passes": passes}
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
        return Caching(None, f"{phase.views} views are more work than {phase.epochs} epochs", **sizes)
    _check_flips(phase, boundary, row_shape)
    return Caching(boundary, "its frozen part is a prefix", **sizes)


def _check_flips(phase: Phase, boundary: str | None, row_shape: tuple[int, ...]) -> None:
    if phase.feature_flips == "none":
        return
    what = f"phase {phase.name!r} has feature_flips={phase.feature_flips!r}, but its features at {boundary!r}"
    if len(row_shape) != 3:
        raise ValueError(f"{what} have the shape {row_shape}, and only maps (height, width, channels) flip")
    if phase.feature_flips == "turns" and row_shape[0] != row_shape[1]:
        raise ValueError(f"{what} have the shape {row_shape}, and only square maps turn")


def _forbidden(config: TrainConfig, phase: Phase, boundary: str | None) -> str | None:
    if boundary is None:
        return "its lowest block trains"
    if config.taps and boundary != PRE_LOGITS:
        return "its head reads all blocks (taps), and some of them train"
    if not phase.cacheable or (phase.augment and config.mixes):
        return "it augments each image afresh (set `views`)"
    return None
