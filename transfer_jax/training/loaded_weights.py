"""The source of each array of a network: a file of weights, or random initial values."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """The weights that a run starts from.

    Attributes:
        name: Name of the set of weights, or the path of a file; `none` for random weights.
        file: The file or folder that was read; empty for random weights.
        loaded: Paths of the arrays that are those of the file, bit for bit.
        initial: Paths of the arrays that have random or constant initial values. Arrays that were converted
            to another image size or number of channels are in neither.
    """

    name: str
    file: str
    loaded: frozenset[str]
    initial: frozenset[str]
