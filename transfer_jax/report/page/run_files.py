"""The files of a run, read from its workdir; the run may be finished, in progress or stopped."""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from transfer_jax.former_names import FIELDS
from transfer_jax.report.class_scores import FILES, ClassScores
from transfer_jax.report.metrics_log import read_metrics
from transfer_jax.report.rate_timeline import Epoch, Timeline
from transfer_jax.storage import workdir_files
from transfer_jax.tasks.confusions import Confusions

_FREEZE_RECORD = re.compile(r"([0-9]{2,})-.+\.json")
"""The names of the freeze records, with the number of the phase."""
_BLOCK_LINES = ("depth", "measure")
"""The kinds of metrics lines that have values by block."""


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of a workdir. A missing file reads as empty.

    Attributes:
        workdir: The workdir of the run.
        name: The name of the run in the report.
    """

    workdir: Path
    name: str

    @classmethod
    def from_workdir(cls, workdir: Path, name: str | None = None) -> "RunFiles":
        """Returns the files of a workdir; the name is that of the folder by default.

        Raises:
            FileNotFoundError: If the folder is not a workdir.
        """
        if not (workdir / workdir_files.CONFIG).is_file():
            raise FileNotFoundError(f"{workdir} is not the folder of a run: it has no {workdir_files.CONFIG}")
        return cls(workdir, name or workdir.absolute().name)

    def json(self, name: str) -> Any:
        """Returns the content of a JSON file of the workdir; an empty dictionary if it is missing.

        Raises:
            ValueError: If the file is damaged.
        """
        return read_json(self.workdir / name)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config, as written by `TrainConfig.to_json`."""
        values: dict[str, Any] = self.json(workdir_files.CONFIG)
        return {FIELDS.get(name, name): value for name, value in values.items()}

    @functools.cached_property
    def schedule(self) -> list[dict[str, Any]]:
        """The phases of the config."""
        return self.config["schedule"]["phases"]

    @functools.cached_property
    def lines(self) -> list[dict[str, Any]]:
        """All lines of the metrics log."""
        path = self.workdir / workdir_files.METRICS
        return read_metrics(path) if path.is_file() else []

    def lines_of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        """Returns the metrics lines of the given kinds."""
        return [line for line in self.lines if line["kind"] in kinds]

    @functools.cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The lines of the trained epochs of all phases."""
        return self.lines_of_kind("train")

    @functools.cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """The scores on the validation images; `at` is the number of epochs of the run before each."""
        counts = {(line["phase"], line["epoch"]): at for at, line in enumerate(self.epochs, 1)}
        found = []
        for line in self.lines_of_kind("evaluation"):
            at = counts.get((line["phase"], line["epoch"]))
            found.append({**line, "at": len(self.epochs) if at is None else at})
        return found

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of the validation images with the weights kept so far; empty before the first."""
        return (self.lines_of_kind("evaluation", "kept") or [{}])[-1]

    @property
    def test_scores(self) -> dict[str, Any]:
        """The scores on the test images, once the run is finished; empty if there are none."""
        return (self.lines_of_kind("test") or [{}])[-1]

    def class_scores(self, part: Literal["validation", "test"] = "validation") -> ClassScores | None:
        """Returns the scores of each class that belong to `scores` or `test_scores`; None if there are none.

        Raises:
            ValueError: If their file is damaged.
        """
        scores = self.scores if part == "validation" else self.test_scores
        if per_class := scores.get("per_class"):
            matrix = scores.get("confusion")
            return ClassScores.of(per_class, None if matrix is None else Confusions.of_matrix(matrix))
        found = ClassScores.read(self.workdir / FILES[part])
        return found if found is not None and found.step == scores.get("step") else None

    @property
    def training_scores(self) -> dict[str, Any]:
        """The last scores on the training images, without augmentation; empty if there are none."""
        return (self.lines_of_kind("training_scores") or [{}])[-1]

    @property
    def finished(self) -> bool:
        """True if the last phase is evaluated after its last epoch, or has ended early."""
        last, ends = self.schedule[-1], self.lines_of_kind("proof")
        if any(line["phase"] == last["name"] for line in ends):
            return True
        end = self.evaluations[-1] if self.evaluations else {}
        return bool(end) and end["phase"] == last["name"] and end["epoch"] >= last["epochs"]

    @functools.cached_property
    def phases(self) -> list[dict[str, Any]]:
        """The results of the finished phases, with the fields of `PhaseResult`."""
        return self.json(workdir_files.PHASES).get("phases", [])

    @functools.cached_property
    def timeline(self) -> dict[str, Any]:
        """The planned schedule: blocks, parameters by block, number of training images, rates by epoch."""
        return self.json(workdir_files.TIMELINE)

    @functools.cached_property
    def blocks(self) -> list[str]:
        """The blocks, input side first, the head last; only the trained ones if there is no timeline."""
        if self.timeline:
            return self.timeline["blocks"]
        return list(max((line["rates"] for line in self.epochs), key=len, default={"head": 0}))

    def planned(self) -> Timeline | None:
        """Returns the planned schedule; None if the run has no timeline."""
        if not self.timeline:
            return None
        return Timeline.from_json(self.timeline["blocks"], self.timeline["planned"])

    def executed(self) -> Timeline:
        """Returns the schedule as executed so far."""
        epochs = (Epoch(x["phase"], x["epoch"], x["rates"]) for x in self.epochs)
        return Timeline(tuple(self.blocks), tuple(epochs))

    def phase_spans(self, by: str = "epoch") -> list[dict[str, Any]]:
        """Returns the `name`, `first` and `last` of each phase on an axis of epochs or steps from 0."""
        spans: list[dict[str, Any]] = []
        end = 0
        for at, line in enumerate(self.epochs, 1):
            if not spans or spans[-1]["name"] != line["phase"]:
                spans.append({"name": line["phase"], "first": end})
            end = at if by == "epoch" else line["step"]
            spans[-1]["last"] = end
        return spans

    @functools.cached_property
    def freeze_records(self) -> list[dict[str, Any]]:
        """The freeze records of the finished phases, one for each phase."""
        folder = self.workdir / workdir_files.FREEZE_RECORDS
        by_phase = {}
        for path in sorted(folder.glob("*.json"), key=lambda path: -len(path.name)):
            if found := _FREEZE_RECORD.fullmatch(path.name):  # A copy that a person made has a longer name.
                by_phase[int(found[1])] = path
        return [read_json(by_phase[number]) for number in sorted(by_phase)]

    @property
    def trained_parameters(self) -> int | None:
        """The largest number of parameters trained at a time in a finished phase; None before the first."""
        spans = (span for each in self.freeze_records for span in each["spans"])
        return max((span["trained"]["parameters"] for span in spans), default=None)

    @property
    def frozen_unchanged(self) -> bool:
        """True if all frozen arrays of all finished phases have the same hash before and after."""
        spans = [span for each in self.freeze_records for span in each["spans"]]
        return bool(spans) and all(
            span["frozen"]["sha256_before"] == span["frozen"]["sha256_after"] for span in spans
        )

    @functools.cached_property
    def block_statistics(self) -> dict[str, list[dict[str, Any]]]:
        """For each statistic measured by block, its lines with `step` and `blocks`."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in self.lines_of_kind(*_BLOCK_LINES):
            for name, values in line.items():
                if isinstance(values, Mapping):
                    found.setdefault(name, []).append({"step": line["step"], "blocks": values})
        return found


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file; an empty dictionary if it is missing.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def thin_out(values: Sequence[Any], most: int) -> list[Any]:
    """Returns at most `most` of the values, evenly spaced, including the first and the last."""
    if len(values) <= most:
        return list(values)
    places = np.linspace(0, len(values) - 1, most).round().astype(int)
    return [values[place] for place in places]
