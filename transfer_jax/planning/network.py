"""The network of a config, before any array is loaded: its weights, its input and its abstract model."""

import dataclasses
import functools

from transfer_jax.config import TrainConfig
from transfer_jax.extras import require
from transfer_jax.features import FeatureShapes
from transfer_jax.freezing.controllers import find_controller
from transfer_jax.models import PRE_LOGITS, Classifier, Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import family_of, variant_of
from transfer_jax.nn.initializers import ShapeRngs
from transfer_jax.nn.layers import Linear
from transfer_jax.report.trackers import check_installed
from transfer_jax.training.cache_choice import forbidden
from transfer_jax.training.phase_split import PhaseSplit, split_schedule
from transfer_jax.training.reinitialize import chosen_blocks
from transfer_jax.weights import find_spec
from transfer_jax.weights.specs import WeightsSpec


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """The network of a config.

    Attributes:
        spec: The pretrained weights; None for random ones.
        preprocessing: The input of the network: that of the weights, with the overrides of the config.
        model: The abstract model: shapes instead of arrays.
    """

    spec: WeightsSpec | None
    preprocessing: Preprocessing
    model: Classifier

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about a preprocessing that was read from a file, and the changes by the config."""
        if self.spec is None or not self.spec.notes:
            return ()
        before, after = dataclasses.asdict(self.spec.preprocessing), dataclasses.asdict(self.preprocessing)
        changed = [
            f"{name}={after[name]} of the config replaces {before[name]} of the weights"
            for name in before
            if before[name] != after[name]
        ]
        return (*self.spec.notes, *changed)

    @functools.cached_property
    def feature_shapes(self) -> FeatureShapes:
        """The arrays of one image's features at every boundary."""
        self.model.eval()
        graphdef, params, stats = split(self.model)
        return FeatureShapes(graphdef, {**params, **stats}, self.preprocessing.image_size)


def check_config(config: TrainConfig, *, schedule: bool = True, started_with: str | None = None) -> Network:
    """Checks a config as far as is possible before any image is read, and returns its network.

    Args:
        config: The config.
        schedule: Whether to check the schedule as well.
        started_with: Name of the set of weights that `auto` stands for, because the run started with it; None
            chooses one.

    Returns:
        The network, with two classes.

    Raises:
        ValueError: If there is no such model, weights, block, parameter or controller, or if a phase requires
            a cache that is impossible.
        FileNotFoundError: If the weights are not on this machine.
        ModuleNotFoundError: If the package of a tracker or of a format of predictions is not installed.
    """
    check_installed(config.trackers)
    if config.prediction_format == "parquet":
        require("pyarrow")
    variant_of(config.model)
    spec, preprocessing = _weights_and_input(config, started_with)
    model = abstract_model(config, 2, image_size=preprocessing.image_size)
    if config.reinitialize:
        chosen_blocks(model, config.reinitialize)
    if spec is not None:
        _check_present(config, spec)
    if schedule:
        check_schedule(config, model)
    return Network(spec, preprocessing, model)


def check_schedule(config: TrainConfig, model: Classifier) -> None:
    """Checks that a network can be trained by the schedule of a config.

    Raises:
        ValueError: If there is no such block, parameter or controller, or if a phase requires a cache that is
            impossible.
    """
    phases = split_schedule(config.schedule, model, steps_per_epoch=1)
    if config.prefix_precision == "int8" and not any(_has_prefix(config, parts) for parts in phases):
        why = "reads all blocks (taps) or trains the first one" if config.taps else "trains the first block"
        raise ValueError(
            f"prefix_precision='int8' needs a frozen part below what trains, but each phase {why}; choose "
            "'auto', or train less, such as train='head'"
        )
    for parts in phases:
        phase = parts.phase
        parts.rates(0)
        forbidden(config, phase, parts.boundary)
        if phase.controller:
            try:
                find_controller(phase.controller)
            except ValueError as error:
                raise ValueError(f"phase {phase.name!r}: {error}") from None


def _has_prefix(config: TrainConfig, parts: PhaseSplit) -> bool:
    """Returns whether a phase has frozen blocks that are computed before the trainable ones."""
    return parts.boundary is not None and (not config.taps or parts.boundary == PRE_LOGITS)


def abstract_model(config: TrainConfig, num_classes: int, *, image_size: int | None = None) -> Classifier:
    """Returns the model of a config with shapes instead of arrays.

    Args:
        config: The config.
        num_classes: Number of classes of the head.
        image_size: Height and width of the input in pixels; None takes that of the config, or else the
            network's own.
    """
    return create_model(
        config.model,
        num_classes,
        hidden=config.hidden,
        dropout=config.dropout,
        drop_path=config.drop_path,
        image_size=image_size or config.image_size,
        taps=config.taps,
        abstract_backbone=True,
        abstract_head=True,
    )


def set_outputs(model: Classifier, outputs: int) -> None:
    """Changes the number of outputs of an abstract model's head, in place."""
    features = model.head.classifier.in_features
    model.head.classifier = Linear(features, outputs, rngs=ShapeRngs())


def expected_input(config: TrainConfig) -> Preprocessing:
    """Returns the input of the network of a config: that of its weights, with the config's overrides."""
    return _weights_and_input(config)[1]


def override(
    preprocessing: Preprocessing, image_size: int | None, crop_fraction: float | None
) -> Preprocessing:
    """Returns a preprocessing with another image size or crop fraction; None keeps its own."""
    changes = {"image_size": image_size, "crop_fraction": crop_fraction}
    return dataclasses.replace(preprocessing, **{k: v for k, v in changes.items() if v is not None})


def _weights_and_input(
    config: TrainConfig, started_with: str | None = None
) -> tuple[WeightsSpec | None, Preprocessing]:
    name = started_with if config.weights == "auto" and started_with else config.weights
    if family_of(config.model).has_weights:
        _check_own(config)
        name = "none"
    spec = None if name == "none" else find_spec(config.model, name, config.weights_entry)
    preprocessing = (spec or variant_of(config.model)).preprocessing
    return spec, override(preprocessing, config.image_size, config.crop_fraction)


def _check_own(config: TrainConfig) -> None:
    """Checks the config of a model of the user's own, which brings its parameters and its blocks."""
    for field, value, default in (
        ("weights", config.weights, "auto"),
        ("reinitialize", config.reinitialize, ""),
        ("taps", config.taps, False),
        ("drop_path", config.drop_path, 0.0),
    ):
        if value != default:
            raise ValueError(
                f"{field}={value!r} is not supported for {config.model!r}, which is a model of your own; "
                "change the function that makes it"
            )


def _check_present(config: TrainConfig, spec: WeightsSpec) -> None:
    """Checks that the weights are on this machine, or downloads them."""
    try:
        spec.path()
    except (FileNotFoundError, ConnectionError) as error:
        if config.weights != "auto" or (chosen := find_spec(config.model).name) == spec.name:
            raise
        raise type(error)(
            f"the run started with the weights {spec.name!r}, and 'auto' is {chosen!r} now: {error}"
        ) from error
