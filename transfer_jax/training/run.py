"""What all phases of a run share: the images, the network and its arrays."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.config import TrainConfig
from transfer_jax.data import (
    ImageDataset,
    ImageScan,
    fewer,
    has_own_split,
    load_dataset,
    scan_images,
    stratified_split,
    without,
)
from transfer_jax.distributed import processes
from transfer_jax.distributed.sharding import ONE_DEVICE, Strategy
from transfer_jax.features import FeatureCacheDir, row_shapes
from transfer_jax.freezing.controllers import find_controller
from transfer_jax.freezing.phase import Phase
from transfer_jax.models import Classifier, Preprocessing, create_model
from transfer_jax.models.flat_arrays import Arrays, split
from transfer_jax.models.registry import variant_of
from transfer_jax.report.progress import Progress
from transfer_jax.report.trackers import check_installed
from transfer_jax.storage import workdir_files
from transfer_jax.storage.remote import local_of
from transfer_jax.training.cache_choice import Caching, choose_caching, forbidden
from transfer_jax.training.loss import balanced_weights
from transfer_jax.training.phase_split import PhaseSplit, split_phase, split_schedule
from transfer_jax.training.reinitialize import chosen_blocks, reinitialize
from transfer_jax.weights import find_spec, load_pretrained
from transfer_jax.weights.specs import WeightsSpec


@dataclasses.dataclass(frozen=True)
class Run:
    """A config, made ready to train.

    Attributes:
        config: The config.
        workdir: The run's folder.
        preprocessing: What the network is given, after the config's overrides.
        train: The images to train on.
        evaluation: The images held out.
        graphdef: Definition of the model, all blocks in inference mode.
        block_names: The backbone's blocks in order.
        params: Paths of all parameters.
        arrays: All parameters and statistics at the start of the run.
        strategy: How it is spread over devices.
    """

    config: TrainConfig
    workdir: Path
    preprocessing: Preprocessing
    train: ImageDataset
    evaluation: ImageDataset
    graphdef: nnx.GraphDef
    block_names: tuple[str, ...]
    params: tuple[str, ...]
    arrays: Arrays
    strategy: Strategy = ONE_DEVICE

    @classmethod
    def of(
        cls,
        model: Classifier,
        config: TrainConfig,
        train: ImageDataset,
        strategy: Strategy | None = None,
        **settings: Any,
    ) -> "Run":
        """The run of a model, which is put into inference mode; `settings` are the other attributes."""
        if strategy is None:
            strategy = Strategy.of(
                config.strategy, fsdp=config.fsdp, tensor=config.tensor, batch_norm=config.batch_norm
            )
        strategy.check_rows(batch_size(config, len(train)), config.accumulate)
        model.eval()
        graphdef, params, stats = split(model)
        arrays = {**params, **stats}
        return cls(
            graphdef=graphdef,
            block_names=model.backbone.block_names,
            params=tuple(params),
            arrays=jax.device_put(arrays) if strategy == ONE_DEVICE else strategy.place(arrays),
            strategy=strategy,
            config=config,
            train=train,
            **settings,
        )

    @functools.cached_property
    def stats(self) -> tuple[str, ...]:
        """Paths of all running statistics."""
        params = {*self.params}
        return tuple(path for path in self.arrays if path not in params)

    @property
    def batch_size(self) -> int:
        """Images in a training step: the config's, or all of them where there are fewer."""
        return batch_size(self.config, len(self.train))

    @property
    def features(self) -> FeatureCacheDir:
        """Where the caches are."""
        folder = self.config.feature_dir
        budget = int(self.config.feature_gigabytes * 1e9)
        return FeatureCacheDir(local_of(folder) if folder else self.workdir / workdir_files.FEATURES, budget)

    @property
    def stored(self) -> str | None:
        """What cached features are stored in, if it is not what they are computed in."""
        wish, computed = self.config.feature_precision, str(self.prefix_dtype)
        return None if wish in ("auto", computed) else wish

    @property
    def dtype(self) -> jnp.dtype:
        """The precision to compute in."""
        return jnp.dtype(self.config.precision)

    @property
    def prefix_dtype(self) -> jnp.dtype:
        """The precision of the frozen blocks below those that train."""
        wish = self.config.prefix_precision
        return self.dtype if wish == "auto" else jnp.dtype(wish)

    @functools.cached_property
    def row_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one image's features at every boundary."""
        return row_shapes(self.graphdef, self.arrays, self.preprocessing.image_size)

    def caching(self, phase: Phase, boundary: str | None) -> Caching:
        """Whether a phase whose frozen prefix ends at a boundary trains on cached features."""
        return choose_caching(
            self.config,
            phase,
            boundary,
            images=(len(self.train), len(self.evaluation)),
            row_shape=self.row_shapes[boundary] if boundary else (),
            stored=self.config.stored_precision,
        )

    def parts(self, index: int, frozen_depth: int = 0) -> PhaseSplit:
        """A phase of the schedule, split, with the first `frozen_depth` blocks frozen."""
        return split_phase(
            self.config.schedule,
            index,
            params=self.params,
            stats=self.stats,
            block_names=self.block_names,
            steps_per_epoch=len(self.train) // self.batch_size,
            frozen_depth=frozen_depth,
        )

    def pretrained(self, paths: Iterable[str]) -> Arrays:
        """The arrays that the run began with, of those paths that it had."""
        return {path: self.arrays[path] for path in paths if path in self.arrays}

    def class_weights(self) -> np.ndarray:
        """The loss weight of each class."""
        classes = len(self.train.class_names)
        if self.config.class_weights == "balanced":
            return balanced_weights(self.train.labels, classes)
        return np.ones(classes, np.float32)


def prepare(
    config: TrainConfig, workdir: Path, progress: Progress, dataset: ImageDataset | None = None
) -> Run:
    """Loads what a run needs; nothing is trained.

    Args:
        config: The config.
        workdir: The run's folder.
        progress: Where to report to.
        dataset: The images; None reads those of the config.

    Raises:
        ValueError: If the images, the model or the weights cannot be used as the config says.
    """
    check(config)
    dataset = images_of(config, workdir, progress, dataset)
    train, evaluation = split_images(dataset, config)
    if len(train) < config.accumulate:
        raise ValueError(
            f"{len(train)} training images cannot be split into accumulate={config.accumulate} parts"
        )
    spec, preprocessing = _expected(config)
    initial = functools.partial(
        create_model,
        config.model,
        len(dataset.class_names),
        hidden=config.hidden,
        dropout=config.dropout,
        drop_path=config.drop_path,
        image_size=preprocessing.image_size,
        taps=config.taps,
        seed=config.seed,
    )
    model = initial(abstract_backbone=spec is not None)
    if spec is not None:
        load_pretrained(model, spec)
    if config.reinitialize:
        reinitialize(model, initial(), config.reinitialize)
    run = Run.of(
        model,
        config=config,
        workdir=workdir,
        preprocessing=preprocessing,
        train=train,
        evaluation=evaluation,
    )
    for index, phase in enumerate(config.schedule.phases):
        run.caching(phase, run.parts(index).boundary)  # What cannot be is an error before any is computed.
    return run


def abstract_run(config: TrainConfig, strategy: Strategy, dataset: ImageDataset | None = None) -> Run:
    """The run of a config with shapes for arrays, on devices that need not be there; nothing is loaded.

    Args:
        config: The config.
        strategy: Its devices.
        dataset: The images; None reads those of the config.
    """
    dataset = load_dataset(config.images, config.data_dir) if dataset is None else dataset
    train, evaluation = split_images(dataset, config)
    return Run.of(
        abstract_model(config, len(dataset.class_names)),
        config=config,
        train=train,
        strategy=strategy,
        workdir=Path(),
        preprocessing=expected_input(config),
        evaluation=evaluation,
    )


def expected_input(config: TrainConfig) -> Preprocessing:
    """What the network of a config is given, after the config's overrides."""
    return _expected(config)[1]


def _expected(config: TrainConfig) -> tuple[WeightsSpec | None, Preprocessing]:
    """The weights of a config, if any, and what the network is given after the config's overrides."""
    spec = None if config.weights == "none" else find_spec(config.model, config.weights)
    preprocessing = (spec or variant_of(config.model)).preprocessing
    return spec, override(preprocessing, config.image_size, config.crop_fraction)


def batch_size(config: TrainConfig, images: int) -> int:
    """Images in a training step: the config's, or all of them where there are fewer."""
    return min(config.batch_size, images // config.accumulate * config.accumulate)


def abstract_model(config: TrainConfig, num_classes: int) -> Classifier:
    """The network of a config, with shapes for arrays."""
    return create_model(
        config.model,
        num_classes,
        hidden=config.hidden,
        image_size=config.image_size,
        taps=config.taps,
        abstract_backbone=True,
        abstract_head=True,
    )


def check(config: TrainConfig) -> None:
    """Checks what can be known of a config before anything is read, computed or written.

    Raises:
        ValueError: If there is no such model, weights, block, parameter or controller, or a cache cannot be.
        FileNotFoundError: If the weights are not on this machine.
        ModuleNotFoundError: If the package of a tracker is not installed.
    """
    check_installed(config.trackers)
    model = abstract_model(config, 2)
    if config.reinitialize:
        chosen_blocks(model, config.reinitialize)
    if config.weights != "none":
        find_spec(config.model, config.weights).path()
    for parts in split_schedule(config.schedule, model, steps_per_epoch=1):
        phase = parts.phase
        parts.rates(0)
        forbidden(config, phase, parts.boundary)
        if phase.controller:
            try:
                find_controller(phase.controller)
            except ValueError as error:
                raise ValueError(f"phase {phase.name!r}: {error}") from None


def split_images(dataset: ImageDataset, config: TrainConfig) -> tuple[ImageDataset, ImageDataset]:
    """The images that a run trains on and those it holds out; errors are those of `stratified_split`."""
    seed = config.seed if config.split_seed is None else config.split_seed
    train, evaluation = stratified_split(dataset, config.eval_fraction, seed)
    if config.images_per_class is not None:
        train = fewer(train, config.images_per_class, seed)
    return train, evaluation


def images_digest(run: Run) -> str:
    """A hash of which images train and which are held out, by name and class."""
    digest = hashlib.sha256()
    for dataset in (run.train, run.evaluation):
        for name, label in zip(dataset.names, dataset.labels.tolist(), strict=True):
            digest.update(f"{name}\0{dataset.class_names[label]}\0".encode())
        digest.update(b"\0")
    return digest.hexdigest()


def override(
    preprocessing: Preprocessing, image_size: int | None, crop_fraction: float | None
) -> Preprocessing:
    """What the weights expect, with what the user wants different."""
    given = {"image_size": image_size, "crop_fraction": crop_fraction}
    return dataclasses.replace(preprocessing, **{k: v for k, v in given.items() if v is not None})


def images_of(
    config: TrainConfig, workdir: Path, progress: Progress, dataset: ImageDataset | None = None
) -> ImageDataset:
    """The images given, or else those of a config, as it wants them.

    Without the bad ones, where it says so; with near duplicates in groups, where they are to stay together.

    Raises:
        ValueError: If near duplicates are to stay together, but the source has a split of its own.
    """
    if dataset is None:
        dataset = load_dataset(config.images, config.data_dir)
    if config.on_bad_image == "error" and not config.keep_together:
        return dataset
    found = scanned(dataset, progress)
    if config.keep_together:
        if has_own_split(dataset):
            raise ValueError(
                f"keep_together cannot move images of {config.images!r}, which has a split of its own; "
                "leave it out, or move the files"
            )
        dataset = dataclasses.replace(dataset, together=found.groups)
    if config.on_bad_image == "error":
        return dataset
    if processes.is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / workdir_files.SKIPPED_IMAGES).write_text(
            "".join(f"{reason}\n" for reason in found.reasons)
        )
    if found.reasons:
        progress.say(f"{len(found.reasons)} bad images are skipped; see {workdir / 'skipped_images.txt'}")
    return without(dataset, np.flatnonzero(found.bad))


def scanned(dataset: ImageDataset, progress: Progress) -> ImageScan:
    """`scan_images` with a bar, if there is anything to look at."""
    started = False

    def advance(images: int) -> None:
        nonlocal started
        if not started:
            progress.start("looking at images", -(-len(dataset) // processes.count()))
            started = True
        progress.advance(images)

    found = scan_images(dataset, advance)
    if started:
        progress.finish()
    return found
