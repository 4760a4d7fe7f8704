"""A run as its workdir tells of it, whether it is finished, under way, or was stopped."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.report.metrics import read_metrics
from transfer_jax.report.timeline import Epoch, Timeline
from transfer_jax.storage import workdir_files

_ASKED = ("depth", "measure")
"""Kinds of lines that have figures by block."""


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The files of a workdir; what is not there is empty.

    Attributes:
        workdir: The folder.
        name: What to call the run.
    """

    workdir: Path
    name: str

    @classmethod
    def from_workdir(cls, workdir: Path, name: str | None = None) -> "RunFiles":
        """The run of a workdir.

        Raises:
            FileNotFoundError: If the folder is not one.
        """
        if not (workdir / workdir_files.CONFIG).is_file():
            raise FileNotFoundError(f"{workdir} is not the folder of a run: it has no config.json")
        return cls(workdir, name or workdir.absolute().name)

    def json(self, name: str) -> Any:
        """What a JSON file of the workdir holds; an empty dictionary where there is none.

        Raises:
            ValueError: If the file is damaged.
        """
        return read_json(self.workdir / name)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config, as `TrainConfig.to_json` gives it."""
        return self.json(workdir_files.CONFIG)

    @functools.cached_property
    def schedule(self) -> list[dict[str, Any]]:
        """The phases of the config."""
        return self.config["schedule"]["phases"]

    @functools.cached_property
    def lines(self) -> list[dict[str, Any]]:
        """The metrics."""
        path = self.workdir / workdir_files.METRICS
        return read_metrics(path) if path.is_file() else []

    def lines_of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        """The lines of some kinds."""
        return [line for line in self.lines if line["kind"] in kinds]

    @functools.cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The epochs that were trained, of all phases."""
        return self.lines_of_kind("train")

    @functools.cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """The scores on the held-out images, each with the `at` epochs of the run before it."""
        counts = {(line["phase"], line["epoch"]): at for at, line in enumerate(self.epochs, 1)}
        found = []
        for line in self.lines_of_kind("evaluation"):
            at = counts.get((line["phase"], line["epoch"]))
            found.append({**line, "at": len(self.epochs) if at is None else at})
        return found

    @property
    def scores(self) -> dict[str, Any]:
        """The last scores; empty before the first."""
        return self.evaluations[-1] if self.evaluations else {}

    @property
    def training_scores(self) -> dict[str, Any]:
        """The last scores on the training images, without augmentation; empty if none were taken."""
        return (self.lines_of_kind("training_scores") or [{}])[-1]

    @property
    def finished(self) -> bool:
        """Whether the last phase was scored at its end."""
        last, end = self.schedule[-1], self.scores
        return bool(end) and end["phase"] == last["name"] and end["epoch"] >= last["epochs"]

    @functools.cached_property
    def phases(self) -> list[dict[str, Any]]:
        """What the phases that are over did, as `PhaseResult`."""
        return self.json(workdir_files.PHASES).get("phases", [])

    @functools.cached_property
    def timeline(self) -> dict[str, Any]:
        """The planned schedule: blocks, parameters by block, images that train, rates by epoch."""
        return self.json(workdir_files.TIMELINE)

    @functools.cached_property
    def blocks(self) -> list[str]:
        """The blocks, input side first, the head last; only those that trained, if there is no plan."""
        if self.timeline:
            return self.timeline["blocks"]
        return list(max((line["rates"] for line in self.epochs), key=len, default={"head": 0}))

    def planned(self) -> Timeline | None:
        """The schedule as it was planned, if the run has said so."""
        if not self.timeline:
            return None
        return Timeline.from_json(self.timeline["blocks"], self.timeline["planned"])

    def executed(self) -> Timeline:
        """The schedule as it was carried out so far."""
        epochs = (Epoch(x["phase"], x["epoch"], x["rates"]) for x in self.epochs)
        return Timeline(tuple(self.blocks), tuple(epochs))

    def phase_spans(self, by: str = "epoch") -> list[dict[str, Any]]:
        """The phases by epochs or steps: `name`, `first` and `last`, of which the axis begins at 0."""
        found: list[dict[str, Any]] = []
        end = 0
        for at, line in enumerate(self.epochs, 1):
            if not found or found[-1]["name"] != line["phase"]:
                found.append({"name": line["phase"], "first": end})
            end = at if by == "epoch" else line["step"]
            found[-1]["last"] = end
        return found

    @functools.cached_property
    def freeze_records(self) -> list[dict[str, Any]]:
        """The proofs of what stayed frozen, a phase each."""
        return [
            read_json(path) for path in sorted((self.workdir / workdir_files.FREEZE_RECORDS).glob("*.json"))
        ]

    @property
    def trained_parameters(self) -> int | None:
        """The most parameters that trained at a time, of the phases that are over."""
        spans = (span for each in self.freeze_records for span in each["spans"])
        return max((span["trained"]["parameters"] for span in spans), default=None)

    @property
    def frozen_unchanged(self) -> bool:
        """Whether all that was frozen has the same hash before and after, in every phase that is over."""
        spans = [span for each in self.freeze_records for span in each["spans"]]
        return bool(spans) and all(
            span["frozen"]["sha256_before"] == span["frozen"]["sha256_after"] for span in spans
        )

    @functools.cached_property
    def block_statistics(self) -> dict[str, list[dict[str, Any]]]:
        """By statistic, what was block_statistics by block: lines with `step` and `blocks`."""
        found: dict[str, list[dict[str, Any]]] = {}
        for line in self.lines_of_kind(*_ASKED):
            for name, values in line.items():
                if isinstance(values, Mapping):
                    found.setdefault(name, []).append({"step": line["step"], "blocks": values})
        return found


def read_json(path: Path) -> Any:
    """What a JSON file holds; an empty dictionary where there is none.

    Raises:
        ValueError: If it is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def thin_out(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of some values, evenly, and the last one always."""
    if len(values) <= most:
        return list(values)
    places = np.linspace(0, len(values) - 1, most).round().astype(int)
    return [values[place] for place in places]
