"""A study: arms that differ in one respect, each trained with the same seeds."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.runs.workdir import check_place, differences
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text

FILE, TRIALS, FEATURES = workdir_files.STUDY, workdir_files.TRIALS, workdir_files.FEATURES
"""In the folder of a study: what it is, the folders of its runs, and the features that they share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Attributes:
        name: For folders, such as `03-blocks.14`.
        label: For people, such as `blocks.14`.
        factors: What it differs in, by factor.
        config: How it trains; the study sets the seed.
    """

    name: str
    label: str
    factors: Mapping[str, Any]
    config: TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a study.

    Attributes:
        name: Of its folder.
        arm: Name of its arm.
        label: That of its arm.
        factors: Those of its arm, and `seed`.
        config: Its config.
    """

    name: str
    arm: str
    label: str
    factors: Mapping[str, Any]
    config: TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of runs, and the question that it answers.

    A seed is one split, one order of the images and one new head, the same in all arms: differences between
    arms are differences within seeds.

    Attributes:
        name: Such as `unfreeze_depth`.
        question: What it asks, as a sentence.
        factor: The factor whose levels are compared, where all other factors are equal.
        baseline: The level that others are compared with; None compares with the best only.
        ordered: Whether the levels have an order, so that a trend can be asked for.
        arms: In the order of the table.
        seeds: Of every arm.
        command: What makes the study again.
        target: Accuracy to say the cost of; None takes one point less than the best mean.
        keep: Whether the models and checkpoints of finished trials are kept.
    """

    name: str
    question: str
    factor: str
    baseline: Any
    ordered: bool
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    command: str = ""
    target: float | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        names = [trial.name for trial in self.trials]
        if len(set(names)) != len(names):
            raise ValueError(f"study {self.name!r} has several trials of one name, or one seed twice")
        if not names:
            raise ValueError(f"study {self.name!r} has no trials; it needs an arm and a seed")
        levels = {arm.factors[self.factor] for arm in self.arms}
        if self.baseline is not None and self.baseline not in levels:
            raise ValueError(f"the baseline {self.baseline!r} is none of the levels {sorted(levels)}")

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All runs, arm by arm."""
        return tuple(
            Trial(
                name=f"{arm.name}-seed{seed}",
                arm=arm.name,
                label=arm.label,
                factors={**arm.factors, "seed": seed},
                config=dataclasses.replace(arm.config, seed=seed),
            )
            for arm in self.arms
            for seed in self.seeds
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        content = {name: getattr(self, name) for name in _PLAIN}
        arms = [{**vars(arm), "config": arm.config.to_json()} for arm in self.arms]
        trials = [{"name": t.name, "label": t.label, "factors": t.factors} for t in self.trials]
        return json.loads(json.dumps({**content, "arms": arms, "trials": trials}))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Study":
        """Reads what `to_json` gave."""
        arms = [Arm(**{**arm, "config": TrainConfig.from_json(arm["config"])}) for arm in values["arms"]]
        plain = {name: values[name] for name in _PLAIN}
        return cls(**{**plain, "arms": tuple(arms), "seeds": tuple(values["seeds"])})


_PLAIN = ("name", "question", "factor", "baseline", "ordered", "seeds", "command", "target", "keep")


def read_study(folder: Path) -> Study:
    """The study that a folder is of.

    Raises:
        FileNotFoundError: If it is no folder of a study.
        ValueError: If what it says cannot be read.
    """
    path = folder / FILE
    try:
        return Study.from_json(json.loads(path.read_bytes()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a study that this version can read: {error}") from error


def begin(study: Study, folder: Path) -> None:
    """Makes a folder that of a study, or goes on with it; a study may gain arms and seeds.

    Raises:
        ValueError: If the folder belongs to another study, or to one whose runs are other ones: what differs
            is named.
        OSError: If it cannot be written.
    """
    check_place(study.arms[0].config, folder)
    if (folder / workdir_files.CONFIG).exists():
        raise ValueError(f"{folder} is the folder of a training run; choose another with --workdir")
    if (folder / FILE).exists():
        _check_same(read_study(folder), study, folder)
    (folder / TRIALS).mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json.dumps(study.to_json(), indent=1))


def _check_same(begun: Study, given: Study, folder: Path) -> None:
    if (begun.name, begun.factor) != (given.name, given.factor):
        raise ValueError(f"{folder} is the folder of the study {begun.name!r}; choose another with --workdir")
    now = {trial.name: trial for trial in given.trials}
    gone = [trial.name for trial in begun.trials if trial.name not in now]
    if gone:
        raise ValueError(
            f"{folder} was begun with {len(begun.trials)} trials, of which this study lacks {_few(gone)}; "
            "arms and seeds may be added, not taken away"
        )
    for trial in begun.trials:
        if changes := differences(trial.config, now[trial.name].config):
            raise ValueError(
                f"{folder} was begun with other runs: in {trial.name}, {'; '.join(changes[:5])}. "
                "Use another folder."
            )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
