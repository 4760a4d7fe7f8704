"""What all phases of a run share: the images, the network and its arrays."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset, check_images, load_dataset, stratified_split, without
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.functional import Arrays, split
from transfer_jax.report.progress import Progress
from transfer_jax.training.loss import balanced_weights
from transfer_jax.weights import find_spec, load_pretrained
from transfer_jax.weights.specs import default_preprocessing


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

    @property
    def batch_size(self) -> int:
        """Images in a training step: the config's, or all of them where there are fewer."""
        return min(self.config.batch_size, len(self.train) // self.config.accumulate * self.config.accumulate)

    @property
    def feature_root(self) -> Path:
        """The folder of the caches."""
        return Path(self.config.feature_dir) if self.config.feature_dir else self.workdir / "features"

    @property
    def dtype(self) -> jnp.dtype:
        """The precision to compute in."""
        return jnp.dtype(self.config.precision)

    def class_weights(self) -> np.ndarray:
        """The loss weight of each class."""
        classes = len(self.train.class_names)
        if self.config.class_weights == "balanced":
            return balanced_weights(self.train.labels, classes)
        return np.ones(classes, np.float32)


def prepare(config: TrainConfig, workdir: Path, progress: Progress) -> Run:
    """Loads what a run needs; nothing is trained.

    Raises:
        ValueError: If the images, the model or the weights cannot be used as the config says.
    """
    dataset = images_of(config, workdir, progress)
    train, evaluation = stratified_split(dataset, config.eval_fraction, config.seed)
    pretrained = config.weights != "none"
    model = create_model(
        config.model,
        len(dataset.class_names),
        hidden=config.hidden,
        dropout=config.dropout,
        seed=config.seed,
        abstract_backbone=pretrained,
    )
    preprocessing = default_preprocessing(config.model)
    if pretrained:
        spec = find_spec(config.model, config.weights)
        load_pretrained(model, spec)
        preprocessing = spec.preprocessing
    preprocessing = override(preprocessing, config.image_size, config.crop_fraction)
    model.eval()
    graphdef, params, stats = split(model)
    return Run(
        config=config,
        workdir=workdir,
        preprocessing=preprocessing,
        train=train,
        evaluation=evaluation,
        graphdef=graphdef,
        block_names=model.backbone.block_names,
        params=tuple(params),
        arrays=jax.device_put({**params, **stats}),
    )


def override(
    preprocessing: Preprocessing, image_size: int | None, crop_fraction: float | None
) -> Preprocessing:
    """What the weights expect, with what the user wants different."""
    given = {"image_size": image_size, "crop_fraction": crop_fraction}
    return dataclasses.replace(preprocessing, **{k: v for k, v in given.items() if v is not None})


def images_of(config: TrainConfig, workdir: Path, progress: Progress) -> ImageDataset:
    """The images of a config, without the bad ones where it says so."""
    dataset = load_dataset(config.images, config.data_dir)
    if config.on_bad_image == "error":
        return dataset
    progress.start("checking images", len(dataset))
    bad = check_images(dataset, lambda done: progress.advance(1))
    progress.finish()
    (workdir / "skipped_images.txt").write_text("".join(f"{reason}\n" for _, reason in bad))
    if bad:
        progress.say(f"{len(bad)} bad images are skipped; see {workdir / 'skipped_images.txt'}")
    return without(dataset, [index for index, _ in bad])
