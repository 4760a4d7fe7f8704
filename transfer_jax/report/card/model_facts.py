"""The facts of a model card that the files of a run do not have."""

import dataclasses

from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.tasks import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """The pretrained weights that a run started with.

    Attributes:
        name: Their name, or the name of the file.
        address: The address of the file, if others can get it from there; else empty.
        licence: SPDX identifier of their licence; None if it is unknown.
        sha256: SHA-256 of the arrays that were loaded; empty if it is unknown.
    """

    name: str
    address: str = ""
    licence: str | None = None
    sha256: str = ""

    @property
    def repo(self) -> str:
        """Name of their repository on the Hugging Face hub; empty if they come from elsewhere."""
        if not self.address.startswith("hf://"):
            return ""
        owner, name, *_ = self.address.removeprefix("hf://").split("/")
        return f"{owner}/{name.partition('@')[0]}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A trained model, for its card.

    Attributes:
        title: The name of the model.
        place: The address or the folder that `from_pretrained` reads.
        model: Name of the network.
        task: The task.
        preprocessing: The preprocessing of the input images.
        parameters: Number of parameters and statistics.
        base: The pretrained weights; None if they were random, or are unknown.
        licence: SPDX identifier of the licence of the model; None for that of the pretrained weights.
        version: Version of this package.
    """

    title: str
    place: str
    model: str
    task: Task
    preprocessing: Preprocessing
    parameters: int
    base: PretrainedWeights | None = None
    licence: str | None = None
    version: str = ""
