"""A study: arms that differ in one factor, each trained with the same seeds."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.runs.absolute_paths import with_absolute_paths
from transfer_jax.runs.workdir import check_place, differences
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.file_names import file_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Attributes:
        name: The name in folders, such as `03-blocks.14`, as far as file systems allow it.
        label: The name in tables and charts, such as `blocks.14`.
        factors: The level of each factor that the arms of the study differ in.
        config: The config of its runs; the study sets the seed.
    """

    name: str
    label: str
    factors: Mapping[str, Any]
    config: TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a study.

    Attributes:
        name: The name of its folder.
        arm: The name of its arm.
        label: The label of its arm.
        factors: The factors of its arm, and `seed`.
        config: The config of the run.
    """

    name: str
    arm: str
    label: str
    factors: Mapping[str, Any]
    config: TrainConfig

    def workdir(self, folder: Path) -> Path:
        """Returns the workdir of this trial in the folder of its study."""
        return folder / workdir_files.TRIALS / self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A grid of runs that answers one question.

    A seed is one split, one order of the images and one new head. All arms have the same seeds, so arms are
    compared within seeds.

    Attributes:
        name: The name of the study, such as `unfreeze_depth`.
        question: The question, as a sentence.
        factor: The factor whose levels are compared, all other factors being equal.
        baseline: The level that the others are compared with; None makes no comparisons.
        ordered: Whether the levels have an order, so that trends are tested.
        arms: The arms, in the order of the table.
        seeds: The seeds of every arm.
        command: The command that runs the study again.
        target: The accuracy whose cost is reported; None takes one point below the best mean.
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
            raise ValueError(
                f"study {self.name!r} has several trials of the same name, or the same seed twice"
            )
        if not names:
            raise ValueError(f"study {self.name!r} has no trials; it needs at least one arm and one seed")
        levels = {arm.factors[self.factor] for arm in self.arms}
        if self.baseline is not None and self.baseline not in levels:
            raise ValueError(f"the baseline {self.baseline!r} is not one of the levels {sorted(levels)}")

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All runs, arm by arm."""
        return tuple(
            Trial(
                name=f"{file_name(arm.name)}-seed{seed}",
                arm=arm.name,
                label=arm.label,
                factors={**arm.factors, "seed": seed},
                config=dataclasses.replace(arm.config, seed=seed),
            )
            for arm in self.arms
            for seed in self.seeds
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the study as plain JSON values."""
        content = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        arms = [{**vars(arm), "config": arm.config.to_json()} for arm in self.arms]
        trials = [{"name": t.name, "label": t.label, "factors": t.factors} for t in self.trials]
        return json.loads(json.dumps({**content, "arms": arms, "trials": trials}))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Study":
        """Returns the study that `to_json` wrote."""
        arms = [Arm(**{**arm, "config": TrainConfig.from_json(arm["config"])}) for arm in values["arms"]]
        plain = {name: values[name] for name in _PLAIN_FIELDS}
        return cls(**{**plain, "arms": tuple(arms), "seeds": tuple(values["seeds"])})


_PLAIN_FIELDS = ("name", "question", "factor", "baseline", "ordered", "seeds", "command", "target", "keep")


def read_study(folder: Path) -> Study:
    """Returns the study of a folder.

    Raises:
        FileNotFoundError: If the folder has no `study.json`.
        ValueError: If `study.json` is damaged or was written by an incompatible version.
    """
    path = folder / workdir_files.STUDY
    try:
        return Study.from_json(json.loads(path.read_bytes()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a study that this version can read: {error}") from error


def create_study_folder(study: Study, folder: Path) -> Study:
    """Creates the folder of a study, or adds new arms and seeds to the folder of an existing one.

    Returns:
        The study as it is in the folder, with absolute paths.

    Raises:
        ValueError: If the folder belongs to a training run, to another study, or to this study with other
            runs, whose differences the message names; or if a config has an object that cannot be imported.
        OSError: If the folder is not writable.
    """
    check_place(study.arms[0].config, folder)
    if unnamed := [each for arm in study.arms for each in arm.config.objects if not each.name]:
        raise ValueError(
            f"the {unnamed[0].kind} {unnamed[0]} has no name to import it by in the processes of a study; "
            "write it in a module, and give its name, as 'package.module:name'"
        )
    if (folder / workdir_files.CONFIG).exists():
        raise ValueError(f"{folder} is the folder of a training run; choose another with --workdir")
    if (folder / workdir_files.STUDY).exists():
        _check_same(read_study(folder), study, folder)
    (folder / workdir_files.TRIALS).mkdir(parents=True, exist_ok=True)
    arms = [dataclasses.replace(arm, config=with_absolute_paths(arm.config)) for arm in study.arms]
    study = dataclasses.replace(study, arms=tuple(arms))
    write_text(folder / workdir_files.STUDY, json.dumps(study.to_json(), indent=1))
    return study


def _check_same(existing: Study, study: Study, folder: Path) -> None:
    if (existing.name, existing.factor) != (study.name, study.factor):
        raise ValueError(
            f"{folder} is the folder of the study {existing.name!r}; choose another with --workdir"
        )
    trials = {trial.name: trial for trial in study.trials}
    missing = [trial.name for trial in existing.trials if trial.name not in trials]
    if missing:
        raise ValueError(
            f"{folder} has {len(existing.trials)} trials, and this study lacks {_first_names(missing)}; "
            "arms and seeds may be added, not removed"
        )
    for trial in existing.trials:
        if changes := differences(trial.config, trials[trial.name].config):
            raise ValueError(
                f"{folder} was created with other runs: in {trial.name}, {'; '.join(changes[:5])}. "
                "Use another folder."
            )


def _first_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
