"""The names of the diagnostics, and the numbers of images and points that they use."""

import dataclasses
from typing import Literal, get_args

DiagnosticName = Literal["calibration", "groups", "distance", "train", "cka", "maps", "interpolation"]
DIAGNOSTIC_NAMES: tuple[DiagnosticName, ...] = get_args(DiagnosticName)
"""The names of all diagnostics, in the order in which they are computed, the fastest first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleSizes:
    """The numbers of images and points that the diagnostics use.

    Attributes:
        images: Maximum number of training images, and of validation images, to score.
        probe: Maximum number of validation images to compare activations on.
        points: Number of points on the line between the start and the end of the run.
        maps: Maximum number of saliency maps.
    """

    images: int = 5000
    probe: int = 256
    points: int = 11
    maps: int = 12

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("probe", 4), ("points", 2), ("maps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
