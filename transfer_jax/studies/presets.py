"""The preset studies.

Each builds its arms from one base config. The study varies the last phase of the schedule. All phases before
it, such as the one that trains a new head, are the same in all arms.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transfer_jax.config import TrainConfig
from transfer_jax.data import load_dataset
from transfer_jax.fields import as_tuple
from transfer_jax.freezing import recipes as published
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes import RECIPES
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.freezing.selectors import SelectorError
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.planning.network import abstract_model
from transfer_jax.runs.images import split_images
from transfer_jax.studies.study import Arm, Study
from transfer_jax.tasks import check_classes
from transfer_jax.training.phase_split import split_schedule
from transfer_jax.training.run import batch_size

HEAD = "head only"


def unfreeze_depth(config: TrainConfig, seeds: Sequence[int]) -> Study:
    """Returns a study of how many blocks are worth unfreezing, from none to all.

    There is an arm for each block; the block and everything above it trains in the last phase. In the arm of
    depth 0 only the head trains, for the same number of epochs.

    Args:
        config: The base config; the blocks of its network are the levels.
        seeds: The seeds.
    """
    blocks = blocks_of(config)
    arms = [_arm(config, "depth", 0, HEAD, "head", len(blocks))]
    for depth, block in enumerate(reversed(blocks), 1):
        arms.append(_arm(config, "depth", depth, f"from {block}", f"from_({block!r})", len(blocks)))
    blocks_text = f"the {len(blocks)} blocks of {config.model}"
    question = f"How many of {blocks_text} are worth unfreezing on {config.images}?"
    return _study("unfreeze_depth", question, "depth", 0, True, arms, seeds)


def surgical(config: TrainConfig, seeds: Sequence[int], spans: int = 6) -> Study:
    """Returns a study of which span of blocks is worth training, with the head and no other blocks.

    Source: Lee et al. 2022, arXiv:2210.11466.

    Args:
        config: The base config; the blocks of its network are divided into spans.
        seeds: The seeds.
        spans: The number of spans, of about equal size.
    """
    blocks = blocks_of(config)
    spans = min(spans, len(blocks))
    arms = [_arm(config, "span", 0, HEAD, "head", spans)]
    for index in range(spans):
        first, last = (len(blocks) * (index + i) // spans for i in (0, 1))
        low, high = blocks[first], blocks[last - 1]
        label = low if low == high else f"{low} to {high}"
        arms.append(_arm(config, "span", index + 1, label, f"between({low!r}, {high!r}) | head", spans))
    arms.append(_arm(config, "span", spans + 1, "all blocks", "all_()", spans))
    question = f"Which span of the blocks of {config.model} is worth training alone on {config.images}?"
    return _study("surgical", question, "span", 0, False, arms, seeds)


def yosinski(config: TrainConfig, seeds: Sequence[int], points: int = 6) -> Study:
    """Returns a study of how many pretrained blocks transfer, kept frozen or fine-tuned.

    Each arm copies the first n pretrained blocks and gives the blocks above random parameters. It trains
    either only the blocks above, or everything. Batch statistics of trained blocks are updated, because those
    of random blocks are unknown. With n = 0 all blocks are random; with n = all only the head is random.

    Source: Yosinski et al. 2014, arXiv:1411.1792: the arms AnB and AnB+.

    Args:
        config: The base config; the blocks of its network are copied.
        seeds: The seeds.
        points: The number of values of n between none and all.
    """
    blocks = blocks_of(config)
    counts = sorted({round(len(blocks) * index / (points + 1)) for index in range(points + 2)})
    arms = []
    for kind in ("frozen", "fine-tuned"):
        for count in counts:
            above = blocks[count] if count < len(blocks) else None
            if kind == "frozen" and count == 0:
                continue  # Nothing is transferred, so this arm equals the fine-tuned one.
            train = "all_()" if kind == "fine-tuned" else "head" if above is None else f"from_({above!r})"
            label = f"{count} of {len(blocks)} blocks"
            changed = dataclasses.replace(
                config,
                reinitialize="" if above is None else f"from_({above!r}) & ~head",
                schedule=_change_last(config.schedule, train=train, norm="train"),
            )
            name = f"{count:02d}-{kind}"
            arms.append(Arm(name=name, label=label, factors={"copied": count, "kind": kind}, config=changed))
    question = f"How many of the {len(blocks)} blocks of {config.model} transfer to {config.images}?"
    return _study("yosinski", question, "copied", len(blocks), True, arms, seeds)


def sample_size(
    config: TrainConfig,
    seeds: Sequence[int],
    sizes: Sequence[int] = (10, 30, 100, 300),
    depths: Sequence[float] = (0.0, 0.25, 0.5, 1.0),
) -> Study:
    """Returns a study of how many training images each depth of unfreezing needs.

    Smaller subsets are contained in larger ones, and the validation images are the same. All arms train for
    about the same number of steps, so arms with fewer images train for more epochs.

    Args:
        config: The base config; see `unfreeze_depth`.
        seeds: The seeds.
        sizes: The numbers of training images of each class. An arm with all images is always added. A size is
            left out if no class has more images than that.
        depths: The fractions of the blocks that are unfrozen.

    Raises:
        ValueError: If the images have no classes that exclude each other.
    """
    blocks = blocks_of(config)
    dataset = load_dataset(config.images, config.data_dir, task=config.task)
    check_classes(dataset.task, "the study sample_size, which draws images of each class,")
    counts = sorted({round(share * len(blocks)) for share in depths})
    everything = _steps_per_epoch(config, dataset)
    most = max(split_images(dataset, config)[0].counts().values())
    arms = []
    for size in (*sorted(size for size in sizes if size < most), None):
        limited = dataclasses.replace(config, images_per_class=size)
        times = max(round(everything / _steps_per_epoch(limited, dataset)), 1)
        phases = tuple(dataclasses.replace(p, epochs=p.epochs * times) for p in config.schedule.phases)
        limited = dataclasses.replace(
            limited, schedule=Schedule(phases), eval_every=max(config.eval_every, 1) * times
        )
        for count in counts:
            train = f"from_({blocks[-count]!r})" if count else "head"
            size_name = "all" if size is None else str(size)
            label = f"from {blocks[-count]}" if count else HEAD
            changed = dataclasses.replace(limited, schedule=_change_last(limited.schedule, train=train))
            factors = {"depth": count, "images_per_class": size_name}
            arms.append(Arm(name=f"{size_name}-{count:02d}", label=label, factors=factors, config=changed))
    question = f"How many images of {config.images} does each depth of {config.model} need?"
    return _study("sample_size", question, "depth", 0, True, arms, seeds)


def recipes(config: TrainConfig, seeds: Sequence[int]) -> Study:
    """Returns a study of which published recipe is best on these images.

    Each recipe trains the head for the epochs of the first phase of the base config, and the rest for the
    epochs of its last phase. Recipes for parts that the network lacks, such as attention, are left out.

    Args:
        config: The base config; its schedule sets the numbers of epochs.
        seeds: The seeds.
    """
    first, *_, last = (config.schedule.phases[0], *config.schedule.phases)
    arms = []
    for name, schedule in published_schedules(config, first.epochs, last.epochs).items():
        changed = dataclasses.replace(config, schedule=schedule, taps=name == "head2toe")
        arms.append(Arm(name=name, label=name, factors={"recipe": name}, config=changed))
    question = f"Which recipe adapts {config.model} best to {config.images}?"
    return _study("recipes", question, "recipe", "feature_extraction", False, arms, seeds)


def seeds(config: TrainConfig, seeds: Sequence[int]) -> Study:
    """Returns a study of how much results vary by chance: by split and training, or by training alone.

    Args:
        config: The config of all runs.
        seeds: The seeds.
    """
    configs = {"split and training": config, "training alone": dataclasses.replace(config, split_seed=0)}
    arms = [
        Arm(name=name.replace(" ", "-"), label=name, factors={"varied": name}, config=changed)
        for name, changed in configs.items()
    ]
    question = f"How much do the scores of {config.model} on {config.images} vary by chance?"
    return _study("seeds", question, "varied", None, False, arms, seeds)


PRESETS: Mapping[str, Callable[..., Study]] = {
    function.__name__: function
    for function in (unfreeze_depth, recipes, yosinski, surgical, sample_size, seeds)
}
"""The functions that make the preset studies, by name."""


def make_study(
    name: str,
    config: TrainConfig,
    seeds: int | Sequence[int],
    *,
    images: str | Iterable[str] = (),
    levels: str | Iterable[str] = (),
) -> Study:
    """Returns a preset study whose trials share their features and record all scores of the table.

    Args:
        name: The name of the study, a key of `PRESETS`.
        config: The base config.
        seeds: The seeds.
        images: More sources of images; each source is a level of the factor `images`.
        levels: The levels to train, as text; all levels by default. The baseline is always included.

    Raises:
        ValueError: If there is no such study or level, or if the config does not suit the study.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown study {name!r}; choose one of {', '.join(PRESETS)}")
    base = dataclasses.replace(
        config, eval_every=config.eval_every or 1, score_training=True, shared_features=True
    )
    seeds, levels = as_tuple(seeds), as_tuple(levels)
    sources = list(dict.fromkeys((config.images, *as_tuple(images))))
    study = _only(PRESETS[name](base, seeds), levels)
    if len(sources) == 1:
        return study
    arms = []
    for number, source in enumerate(sources):
        same = PRESETS[name](dataclasses.replace(base, images=source), seeds)
        for arm in _only(same, levels).arms:
            factors = {**arm.factors, "images": source}
            arms.append(dataclasses.replace(arm, name=f"{arm.name}-images{number}", factors=factors))
    question = study.question.replace(config.images, " and ".join(sources))
    return dataclasses.replace(study, arms=tuple(arms), question=question)


def _only(study: Study, levels: Sequence[str]) -> Study:
    """Returns the study with only the given levels and the baseline."""
    known = dict.fromkeys(str(arm.factors[study.factor]) for arm in study.arms)
    if unknown := [level for level in levels if level not in known]:
        raise ValueError(
            f"study {study.name!r} has no {study.factor} {unknown[0]!r}; it has {', '.join(known)}"
        )
    kept = {*(levels or known), str(study.baseline)}
    arms = tuple(arm for arm in study.arms if str(arm.factors[study.factor]) in kept)
    return dataclasses.replace(study, arms=arms)


def blocks_of(config: TrainConfig) -> tuple[str, ...]:
    """Returns the blocks of the config's backbone that have parameters, input side first."""
    model = abstract_model(config, 2)
    _, params, _ = split(model)
    have = set(map(block_of, params))
    return tuple(name for name in model.backbone.block_names if name in have)


def published_schedules(config: TrainConfig, head_epochs: int, epochs: int) -> dict[str, Schedule]:
    """Returns the schedules of the published recipes that suit the network, by name.

    Args:
        config: The config of the network.
        head_epochs: The epochs of the phase that trains the head.
        epochs: The epochs of the phases that train other blocks.
    """
    blocks = blocks_of(config)
    lower = blocks[: max(len(blocks) // 2, 1)]
    quarter = max(len(blocks) // 4, 1)
    groups = tuple(blocks[len(blocks) * index // 4] for index in range(4)) if len(blocks) >= 4 else blocks
    both = {"head_epochs": head_epochs, "epochs": epochs}
    given: dict[str, dict[str, Any]] = {
        "feature_extraction": {"epochs": head_epochs},
        "frozen_base": {"epochs": epochs},
        "five_steps": {"unfreeze": f"top({quarter})", **both, "views": max(epochs // 2, 1)},
        "frofa": {"epochs": head_epochs},
        "head2toe": {"epochs": max(head_epochs // 2, 1)},
        "gradual_unfreezing": {"groups": groups, "last_epochs": epochs},
        "top_k": {"count": quarter, **both},
        "surgical": {"first": next(iter(lower)), "last": lower[-1], **both},
        "freezeout": {"blocks": blocks, "epochs": epochs},
    }
    model = abstract_model(dataclasses.replace(config, taps=False), 2)
    found = {}
    for name in RECIPES:
        schedule = getattr(published, name)(**given.get(name, both))
        try:
            split_schedule(schedule, model, steps_per_epoch=1)
        except SelectorError:
            continue  # The network lacks a part that the recipe trains.
        found[name] = schedule
    return found


def _arm(config: TrainConfig, factor: str, level: int, label: str, train: str, levels: int) -> Arm:
    digits = len(str(levels))
    short = label.replace(" ", "-").removeprefix("from-")
    changed = dataclasses.replace(config, schedule=_change_last(config.schedule, train=train))
    return Arm(name=f"{level:0{digits}d}-{short}", label=label, factors={factor: level}, config=changed)


def _change_last(schedule: Schedule, **changes: Any) -> Schedule:
    """Returns the schedule with changes to its last phase."""
    phase: Phase = schedule.phases[-1]
    return Schedule((*schedule.phases[:-1], dataclasses.replace(phase, **changes)))


def _steps_per_epoch(config: TrainConfig, dataset: Any) -> int:
    images = len(split_images(dataset, config)[0])
    return max(images // batch_size(config, images), 1)


def _study(
    name: str,
    question: str,
    factor: str,
    baseline: Any,
    ordered: bool,
    arms: Sequence[Arm],
    seeds: Sequence[int],
) -> Study:
    return Study(
        name=name,
        question=question,
        factor=factor,
        baseline=baseline,
        ordered=ordered,
        arms=tuple(arms),
        seeds=tuple(seeds),
    )
