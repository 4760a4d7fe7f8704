"""A run: the images, the network and its arrays, which all of its phases share."""

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset
from transfer_jax.data.readers import Readers, choose_readers
from transfer_jax.distributed.sharding import ONE_DEVICE, Strategy
from transfer_jax.features import FeatureCacheDir, FeatureShapes, RowFormat
from transfer_jax.freezing.phase import Phase
from transfer_jax.models import Classifier, Preprocessing
from transfer_jax.models.adapters.adapter import Adapter, Prompts, is_adapter_path
from transfer_jax.models.flat_arrays import Arrays, merge, split
from transfer_jax.storage import workdir_files
from transfer_jax.storage.remote import local_path
from transfer_jax.tasks import Task
from transfer_jax.training.cache_choice import Caching, choose_caching
from transfer_jax.training.loaded_weights import LoadedWeights
from transfer_jax.training.phase_split import PhaseSplit, split_phase, with_adapters

_LARGE = 20_000
"""Number of images in order from which on processes read them."""
Part = Literal["validation", "training", "test"]
"""A part of the images of a run."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A config with its images and arrays, ready to train.

    Attributes:
        config: The config.
        workdir: The run's folder.
        preprocessing: The input of the network, with the overrides of the config.
        train: The training images.
        evaluation: The validation images.
        test: The test images; None if there are none.
        graphdef: Definition of the model, all blocks in inference mode.
        block_names: The backbone's blocks in order.
        params: Paths of all parameters.
        arrays: All parameters and statistics at the start of the run.
        strategy: The devices of a step.
        weights: The source of the arrays; None if it is not known.
        known_feature_shapes: The value of `feature_shapes`, if it is known already; None computes it.
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
    weights: LoadedWeights | None = None
    known_feature_shapes: FeatureShapes | None = None
    test: ImageDataset | None = None

    def images(self, part: Part) -> ImageDataset:
        """Returns the training, validation or test images.

        Raises:
            ValueError: If there are no test images.
        """
        found = {"validation": self.evaluation, "training": self.train, "test": self.test}[part]
        if found is None:
            raise ValueError("the run has no test images; set test_fraction (--test-fraction)")
        return found

    @classmethod
    def of(
        cls,
        model: Classifier,
        config: TrainConfig,
        train: ImageDataset,
        strategy: Strategy | None = None,
        **settings: Any,
    ) -> "Run":
        """Returns the run of a model.

        Args:
            model: The model, which is put into inference mode.
            config: The config.
            train: The training images.
            strategy: The devices; None takes those of the config.
            **settings: The other attributes.

        Raises:
            ValueError: If the batch cannot be split over the devices.
        """
        if strategy is None:
            strategy = Strategy.of(
                config.strategy,
                fsdp=config.fsdp,
                tensor=config.tensor,
                slices=config.slices,
                batch_norm=config.batch_norm,
                shard_update=config.shard_update,
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
        """Number of images in a training step: that of the config, or all images if there are fewer."""
        return batch_size(self.config, len(self.train))

    def readers(self, fetch: Any, images: int | None = None) -> Readers:
        """Returns the threads and processes that read images.

        Args:
            fetch: The function that reads a batch.
            images: Number of images that are read once, in order: processes take longer to start than to
                read a few of them. None for endless batches.
        """
        readers = choose_readers(
            self.config.threads,
            self.config.read_processes,
            accelerated=jax.default_backend() != "cpu",
            source=fetch,
        )
        return readers if images is None or images >= _LARGE else readers._replace(workers=0)

    @property
    def features(self) -> FeatureCacheDir:
        """The folder of feature caches."""
        folder = self.config.feature_dir
        budget = int(self.config.feature_gigabytes * 1e9)
        return FeatureCacheDir(
            local_path(folder) if folder else self.workdir / workdir_files.FEATURES, budget
        )

    @property
    def stored(self) -> str | None:
        """The precision in which cached features are stored; None for the one they are computed in."""
        precision, computed = self.config.feature_precision, str(self.prefix_dtype)
        return None if precision in ("auto", computed) else precision

    @property
    def dtype(self) -> jnp.dtype:
        """The precision of the forward and backward pass."""
        return jnp.dtype(self.config.precision)

    @property
    def prefix_dtype(self) -> jnp.dtype:
        """The precision of the frozen blocks below the trainable ones; in int8, that of their features."""
        precision = self.config.prefix_precision
        return self.dtype if precision in ("auto", "int8") else jnp.dtype(precision)

    @property
    def int8(self) -> bool:
        """True if the frozen blocks below the trainable ones are computed in int8."""
        return self.config.prefix_precision == "int8"

    @property
    def exchange_dtype(self) -> jnp.dtype:
        """The precision in which gradients are exchanged between devices."""
        precision = self.config.gradient_exchange
        return self.dtype if precision == "auto" else jnp.dtype(precision)

    @functools.cached_property
    def feature_shapes(self) -> FeatureShapes:
        """The arrays of one image's features at every boundary."""
        if self.known_feature_shapes is not None:
            return self.known_feature_shapes
        return FeatureShapes(self.graphdef, self.arrays, self.preprocessing.image_size)

    def row_format(self, boundary: str) -> RowFormat:
        """Returns the format of the cached features at a boundary."""
        return RowFormat.of_shapes(self.feature_shapes[boundary], self.stored or str(self.prefix_dtype))

    def caching(self, phase: Phase, boundary: str | None) -> Caching:
        """Returns whether a phase trains on cached features, and why.

        Args:
            phase: The phase.
            boundary: The end of its frozen prefix; None if there is none.

        Raises:
            ValueError: If the phase requires a cache that is impossible.
        """
        return choose_caching(
            self.config,
            phase,
            boundary,
            images=(len(self.train), len(self.evaluation)),
            row_format=self.row_format(boundary) if boundary else None,
        )

    def at(self, index: int) -> "Run":
        """Returns the run whose network has the adapters of a phase; the run itself if it has them."""
        if self.adapters or not self.config.schedule.adapters(index):
            return self
        if index not in self._adapted:
            model = merge(self.graphdef, self.arrays)
            model = with_adapters(model, self.config.schedule, index, self.config.seed)
            self._adapted[index] = self._with_network(model)
        return self._adapted[index]

    @functools.cached_property
    def _adapted(self) -> dict[int, "Run"]:
        """The runs that `at` returned."""
        return {}

    def _with_network(self, model: Classifier) -> "Run":
        """Returns the run of an adapted network."""
        graphdef, params, _ = split(model)
        added = {path: x for path, x in params.items() if path not in self.arrays}
        return dataclasses.replace(
            self,
            graphdef=graphdef,
            params=tuple(params),
            arrays={**self.arrays, **self.strategy.place(added)},
            known_feature_shapes=None if _more_tokens(model) else self.known_feature_shapes,
        )

    @functools.cached_property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters of the network."""
        return merge(self.graphdef, self.arrays).backbone.adapters

    def parts(self, index: int, frozen_depth: int = 0) -> PhaseSplit:
        """Returns a phase of the schedule, split, with the first `frozen_depth` blocks frozen."""
        run = self.at(index)
        return split_phase(
            self.config.schedule,
            index,
            params=run.params,
            stats=run.stats,
            block_names=self.block_names,
            adapters=run.adapters,
            steps_per_epoch=len(self.train) // self.batch_size,
            frozen_depth=frozen_depth,
        )

    def pretrained(self, paths: Iterable[str]) -> Arrays:
        """Returns the arrays at the start of the run, for those of the paths that existed then."""
        known = (path for path in paths if path in self.arrays and not is_adapter_path(path))
        return {path: self.arrays[path] for path in known}

    @functools.cached_property
    def task(self) -> Task:
        """The task, with the constants of the training images."""
        return self.train.task.fitted(self.train.labels)

    def class_weights(self) -> np.ndarray | None:
        """Returns the loss weight of each class, `(classes,)`; None if the task has no such classes."""
        return self.task.class_weights(self.train.labels, self.config.class_weights)


def _more_tokens(model: Classifier) -> bool:
    """Returns True if an adapter changes the number of tokens between blocks."""
    return any(isinstance(each, Prompts) and not each.deep for each in model.backbone.adapters)


def batch_size(config: TrainConfig, images: int) -> int:
    """Returns the number of images in a training step: the config's, or all images if there are fewer."""
    return min(config.batch_size, images // config.accumulate * config.accumulate)
