"""The record of a search in its workdir: what was tried, when, and with which scores."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.tasks import Metric

Kind = Literal["heads", "phases", "soup"]
Status = Literal["running", "finished", "stopped", "failed"]


@dataclasses.dataclass(kw_only=True)
class TrialRecord:
    """One model that was trained.

    Attributes:
        name: Name of its folder in `trials`.
        kind: `heads` for a sweep of heads, `phases` for a schedule, `soup` for an average of models.
        network: Name of the network.
        text: Its settings in a few words.
        images: Number of its training images.
        validation_images: Number of the images that its scores are about.
        rung: Number of the trial that it continues, plus one; 0 for the first.
        started: Seconds of the budget that were used when it started.
        ended: Those when it ended; None while it runs.
        estimate: Estimated seconds.
        status: Its state.
        scores: Scores of the validation images.
        undone: Whether the last phase was undone, because it made the model no better.
        error: The message of a trial that failed.
    """

    name: str
    kind: Kind
    network: str
    text: str
    images: int
    validation_images: int
    rung: int = 0
    started: float = 0.0
    ended: float | None = None
    estimate: float | None = None
    status: Status = "running"
    scores: dict[str, float] = dataclasses.field(default_factory=dict)
    undone: bool = False
    error: str = ""


@dataclasses.dataclass(kw_only=True)
class NetworkRecord:
    """A network whose features were scored.

    Attributes:
        name: Name of the network.
        image_size: Height and width of its input, in pixels.
        images: Number of training images whose features were scored.
        seconds_per_image: Wall seconds of the network's forward pass and of reading, for each image.
        score: Cross-validated score of a linear model on its features.
        log_me: LogME of the features; see `transferability.log_me`.
    """

    name: str
    image_size: int
    images: int
    seconds_per_image: float
    score: float
    log_me: float | None = None


@dataclasses.dataclass(kw_only=True)
class SearchRecord:
    """Everything that a search has found so far; `search.json` in its workdir.

    Attributes:
        budget: The budget in seconds.
        used: Seconds that are used.
        task: The task, as JSON.
        command: The command line.
        networks: The networks whose features were scored.
        trials: The trials, in the order of their starts.
        best: Name of the trial whose model is in hand; empty before the first one.
        finished: Whether the search has ended and the test images are scored.
        test: Scores of the test images with the best model, which they did not choose; empty without them.
        optimism: The estimated difference of the best trial's validation score from its expectation, in units
            of the score, and its standard error; None if there is no estimate.
    """

    budget: float
    used: float = 0.0
    task: dict[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""
    networks: list[NetworkRecord] = dataclasses.field(default_factory=list)
    trials: list[TrialRecord] = dataclasses.field(default_factory=list)
    best: str = ""
    finished: bool = False
    test: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimism: tuple[float, float] | None = None

    @classmethod
    def read(cls, workdir: Path) -> "SearchRecord | None":
        """Returns the record in a workdir; None if there is none.

        Raises:
            ValueError: If it is damaged.
        """
        path = workdir / workdir_files.SEARCH
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_bytes())
            values["networks"] = [NetworkRecord(**each) for each in values["networks"]]
            values["trials"] = [TrialRecord(**each) for each in values["trials"]]
            optimism = values["optimism"]
            return cls(**{**values, "optimism": tuple(optimism) if optimism else None})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); restore it, or use another workdir") from None

    def write(self, workdir: Path) -> None:
        """Writes the record atomically."""
        write_text(workdir / workdir_files.SEARCH, json.dumps(dataclasses.asdict(self), indent=1))

    def trial(self, name: str) -> TrialRecord | None:
        """Returns a trial by its name; None if it has not started."""
        return next((each for each in self.trials if each.name == name), None)

    def network(self, name: str) -> NetworkRecord | None:
        """Returns a network by its name; None if its features are not scored."""
        return next((each for each in self.networks if each.name == name), None)

    def finished_trials(self) -> list[TrialRecord]:
        """Returns the trials that have a model."""
        return [each for each in self.trials if each.status == "finished"]

    def is_better(self, trial: TrialRecord, metric: Metric) -> bool:
        """Returns whether a finished trial is better than the best one so far.

        A trial with more validation images is preferred to one whose scores are about a few of them.
        """
        best = self.trial(self.best)
        if best is None or trial.validation_images != best.validation_images:
            return best is None or trial.validation_images > best.validation_images
        return bool(metric.is_better(trial.scores[metric.name], best.scores[metric.name]))
