"""The whole of a run in one value."""

import dataclasses
import json
import re
import runpy
from pathlib import Path
from typing import Any, Literal, get_args

from transfer_jax.data import Augmentation
from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes import five_steps
from transfer_jax.freezing.schedule import Schedule
from transfer_jax.freezing.selectors import parse

Precision = Literal["float32", "bfloat16"]
PrefixPrecision = Literal["auto", "float32", "bfloat16"]
FeaturePrecision = Literal["auto", "float16", "bfloat16", "int8"]
FeatureTier = Literal["auto", "disk", "memory", "device"]
ClassWeights = Literal["none", "balanced"]
OnBadImage = Literal["error", "skip"]
StrategyName = Literal["auto", "jit", "mesh", "pmap"]
BatchNorm = Literal["global", "per_device"]
TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the result of a run.

    Attributes:
        images: Where the images come from: a folder with a subfolder a class, `csv:FILE`, `tfds:NAME`,
            `elpv`, `elpv:likely`, `elpv:sure` or `elpv:confidence`.
        model: Name of the network (`transfer-jax models`).
        weights: `auto` for the weights published for the network, a file, or `none` for random ones.
        reinitialize: Selector of blocks that begin with random parameters in place of the pretrained ones, as
            whole blocks; empty for none.
        schedule: What trains when.
        augmentation: How training images are varied in the phases that augment.
        eval_fraction: Share of the images held out, stratified by class, to evaluate on; without effect where
            a folder has a `train` beside a `val`, `validation` or `test`.
        split_seed: Seed of the split; None takes `seed`.
        keep_together: Whether near duplicates are kept on the same side of the split. All images are then
            looked at first.
        images_per_class: Training images of each class at most, drawn at random with the split: the fewer are
            among the more, and the held-out images stay the same. None takes all.
        image_size: Side of the network's input in pixels; None takes what the weights expect.
        crop_fraction: Share of an image's shorter side that evaluation sees; None takes what the weights
            expect; 1.0 shows the whole of a square image.
        hidden: Widths of hidden layers in the head.
        taps: Whether the head reads the outputs of all blocks, pooled, side by side (see `Backbone`).
        dropout: Dropout of the head; None takes the network's own.
        drop_path: Stochastic depth of the backbone's last block, while it trains; those below it have less.
        batch_size: Images in a step.
        accumulate: Parts that a batch is split into, to hold only one of them in memory at a time.
        label_smoothing: Share of the target spread evenly over the classes.
        class_weights: `balanced` weights the loss of each class by the inverse of its frequency.
        remat: Whether backward computes the activations inside a block anew instead of keeping them: less
            memory, at the price of another forward pass.
        precision: `float32` or `bfloat16`: what forward and backward compute in; parameters stay float32.
        prefix_precision: What the frozen blocks below those that train compute in, where features are cached
            and where they are not; `auto`, what the others compute in.
        ema_decay: Decay of an exponential moving average of the weights that evaluation then uses; 0 is off.
        seed: Seed of the split, the head, the order, the augmentation and dropout.
        on_bad_image: `error` stops at an image that cannot be read; `skip` leaves such images out and lists
            them in the workdir.
        eval_every: Epochs between evaluations; 0 evaluates at the end of each phase only.
        score_training: Whether the training images are scored, too, at the end of the run: as evaluation sees
            them, without augmentation.
        measure_every: Steps between measurements of gradients, updates and distances by depth; 0 is off.
        checkpoint_seconds: Time between checkpoints, in seconds; one is also taken at the end of each phase.
        strategy: How a step is spread over devices: `jit`, one device; `mesh`, all of them, each with its
            share of the batch; `pmap`, the same by `jax.pmap`; `auto`, a mesh where there are several
            accelerators or processes, and one device otherwise.
        fsdp: Devices that parameters and optimizer state are spread over; a `mesh` of more repeats them.
        tensor: Devices that the matrices of a transformer are spread over.
        batch_norm: What normalization by the batch takes: `global`, all of it, so that the numbers are those
            of one device; `per_device`, the share of each device, which saves talk between them.
        compile_ahead: Whether to compile the next phase while one trains; None does with more than two cores.
        compiler_options: Options of XLA for the program of the training step, as `name=value`, such as
            `xla_tpu_enable_latency_hiding_scheduler=true`.
        threads: Threads that read images.
        data_dir: Folder of prepared datasets; None takes the default.
        feature_dir: Folder of cached features, which several runs may share; None puts them into the workdir.
        shared_features: Whether a cache holds the features of all images, trained on and held out, computed
            from the images themselves: runs with other splits share it then, whichever came first.
        feature_precision: What cached features are stored in: `auto`, what they are computed in; `float16`,
            `bfloat16` or `int8`, which take less room and say what error they make.
        feature_gigabytes: Disk that all caches in that folder may take, in units of 10^9 bytes; those used
            least recently are dropped.
        feature_tier: Where cached features are kept while a phase trains on them: on `disk`, memory-mapped,
            in `memory`, or on the `device`; `auto` takes the fastest with room for them.
        trackers: Trackers of experiments to report to besides the workdir: `tensorboard`, `wandb`, `mlflow`,
            `trackio`.
    """

    images: str
    model: str = "efficientnet_lite0"
    weights: str = "auto"
    reinitialize: str = ""
    schedule: Schedule = dataclasses.field(default_factory=lambda: five_steps("top(2)"))
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    eval_fraction: float = 0.25
    split_seed: int | None = None
    keep_together: bool = False
    images_per_class: int | None = None
    image_size: int | None = None
    crop_fraction: float | None = None
    hidden: tuple[int, ...] = ()
    taps: bool = False
    dropout: float | None = None
    drop_path: float = 0.0
    batch_size: int = 32
    accumulate: int = 1
    label_smoothing: float = 0.0
    class_weights: ClassWeights = "none"
    remat: bool = False
    precision: Precision = "float32"
    prefix_precision: PrefixPrecision = "auto"
    ema_decay: float = 0.0
    seed: int = 0
    on_bad_image: OnBadImage = "error"
    eval_every: int = 0
    score_training: bool = False
    measure_every: int = 0
    checkpoint_seconds: float = 30.0
    strategy: StrategyName = "auto"
    fsdp: int = 1
    tensor: int = 1
    batch_norm: BatchNorm = "global"
    compile_ahead: bool | None = None
    compiler_options: tuple[str, ...] = ()
    threads: int = 2
    data_dir: str | None = None
    feature_dir: str | None = None
    shared_features: bool = False
    feature_precision: FeaturePrecision = "auto"
    feature_gigabytes: float = 50.0
    feature_tier: FeatureTier = "auto"
    trackers: tuple[TrackerName, ...] = ()

    def __post_init__(self) -> None:
        for field, choices in (
            ("precision", get_args(Precision)),
            ("prefix_precision", get_args(PrefixPrecision)),
            ("feature_precision", get_args(FeaturePrecision)),
            ("feature_tier", get_args(FeatureTier)),
            ("class_weights", get_args(ClassWeights)),
            ("on_bad_image", get_args(OnBadImage)),
            ("strategy", get_args(StrategyName)),
            ("batch_norm", get_args(BatchNorm)),
        ):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} must be one of {choices}, got {getattr(self, field)!r}")
        for field, good, wanted in (
            ("eval_fraction", 0 < self.eval_fraction < 1, "in (0, 1)"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("accumulate", self.accumulate >= 1, "at least 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("drop_path", 0 <= self.drop_path < 1, "in [0, 1)"),
            ("ema_decay", 0 <= self.ema_decay < 1, "in [0, 1)"),
            ("seed", self.seed >= 0, "at least 0"),
            ("split_seed", self.split_seed is None or self.split_seed >= 0, "at least 0"),
            ("images_per_class", self.images_per_class is None or self.images_per_class >= 1, "at least 1"),
            ("eval_every", self.eval_every >= 0, "at least 0"),
            ("measure_every", self.measure_every >= 0, "at least 0"),
            ("checkpoint_seconds", self.checkpoint_seconds >= 0, "at least 0"),
            ("threads", self.threads >= 1, "at least 1"),
            ("fsdp", self.fsdp >= 1, "at least 1"),
            ("tensor", self.tensor >= 1, "at least 1"),
            ("feature_gigabytes", self.feature_gigabytes > 0, "more than 0"),
        ):
            if not good:
                raise ValueError(f"{field} must be {wanted}, got {getattr(self, field)}")
        if self.reinitialize:
            object.__setattr__(self, "reinitialize", str(parse(self.reinitialize)))
        for tracker in self.trackers:
            if tracker not in get_args(TrackerName):
                raise ValueError(f"trackers must be among {get_args(TrackerName)}, got {tracker!r}")
        for option in self.compiler_options:
            if not re.fullmatch(r"xla_\w+=\S+", option):
                raise ValueError(f"compiler_options must be like xla_name=value, got {option!r}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}")
        if self.mixes:
            for phase in self.schedule.phases:
                if phase.augment and (phase.views or phase.cache == "require"):
                    raise ValueError(
                        f"phase {phase.name!r} wants a cache, but mixup and cutmix need live images"
                    )

    @property
    def mixes(self) -> bool:
        """Whether augmentation mixes images of a batch, inside the step."""
        return self.augmentation.mixup > 0 or self.augmentation.cutmix > 0

    @property
    def stored_precision(self) -> str:
        """What cached features are stored in."""
        computed = self.precision if self.prefix_precision == "auto" else self.prefix_precision
        return computed if self.feature_precision == "auto" else self.feature_precision

    def to_json(self) -> dict[str, Any]:
        """The config as plain JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainConfig":
        """Reads what `to_json` gave."""
        phases = tuple(Phase(**phase) for phase in values["schedule"]["phases"])
        augmentation = Augmentation(**_with_tuples(values["augmentation"]))
        return cls(**{**_with_tuples(values), "schedule": Schedule(phases), "augmentation": augmentation})


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists for tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def shipped_configs() -> dict[str, Path]:
    """The experiments that come with the package, by name."""
    package = Path(__file__).parent
    for folder in (package / "configs", package.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.py"))}
    return {}


def load_config(name: str) -> TrainConfig:
    """Reads an experiment: a Python file that defines `config`, or the name of one that comes along.

    The `config.json` of a run is one too.

    Raises:
        ValueError: If there is no such file, it fails, or it defines no `TrainConfig` named `config`.
    """
    shipped = shipped_configs()
    path = shipped.get(name, Path(name))
    if not path.is_file():
        raise ValueError(f"no config {name!r}: neither a file nor one of {', '.join(shipped)}")
    if path.suffix == ".json":
        try:
            return TrainConfig.from_json(json.loads(path.read_bytes()))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a config that this version can read: {error}") from error
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:
        raise ValueError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{path} must define `config`, a TrainConfig; it defines {type(config).__name__}")
    return config
