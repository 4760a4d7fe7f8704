"""A toy network, runs of it, and real photographs, for all tests."""

import itertools
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before jax is imported; the command line and subprocesses of tests follow it too.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir(), f"transfer_jax_tests_{os.getuid()}"))
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Compiling is most of the work of these tests, and half of that is LLVM's optimization. Small programs gain
# nothing from being compiled in parts.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)
# Or else Keras looks for TensorFlow, and tests that find none are skipped.
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import numpy as np
import pytest
import skimage.data
from flax import nnx
from PIL import Image

from transfer_jax.config import TrainConfig
from transfer_jax.data import ImageDataset, eval_transform, from_arrays, stratified_split
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.models import PRE_LOGITS, Backbone, Classifier, Head, Preprocessing, create_model, registry
from transfer_jax.models.family import Family, Setting, Variant
from transfer_jax.models.flat_arrays import Arrays, merge, split
from transfer_jax.models.mbconv import MBConv, Style
from transfer_jax.nn.initializers import NumpyRngs
from transfer_jax.nn.layers import ConvNorm, GlobalPool
from transfer_jax.quiet_libtpu import quiet_without_tpu
from transfer_jax.training.run import Run
from transfer_jax.weights import find_spec, load_pretrained

quiet_without_tpu()  # In subprocesses of tests too.
FINISHED = itertools.count(1)
"""The tests of this process."""
MAPS = Path("/proc/self/maps")
STYLE = Style(activation=jax.nn.relu6, epsilon=1e-3, same=True)
TOY_PREPROCESSING = Preprocessing(
    image_size=16,
    crop_fraction=1.0,
    interpolation="bilinear",
    mean=(127.0, 127.0, 127.0),
    std=(64.0, 64.0, 64.0),
)


def pytest_configure(config: pytest.Config) -> None:
    # Two workers may write and read the same entry of the cache at once; jax then compiles, and warns.
    config.addinivalue_line("filterwarnings", "ignore:Error (reading|writing) persistent compilation cache")
    # A shell starts programs in its background with Ctrl-C ignored, which they and their children inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def forget_programs() -> Iterator[None]:
    """Frees compiled programs when they are many: they take memory, and XLA crashes at 65,530 memory maps."""
    yield
    if next(FINISHED) % 20 == 0 and (len(MAPS.read_bytes().splitlines()) > 20_000 or resident() > 2e9):
        jax.clear_caches()


def resident() -> int:
    """The bytes of this process in memory."""
    return int(MAPS.with_name("statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def build_toy(shape: None, setting: Setting) -> Backbone:
    """Builds the backbone of `make_toy`."""
    rngs = setting.rngs
    blocks = {
        "stem": ConvNorm(setting.channels, 8, 3, strides=2, activation=jax.nn.relu6, rngs=rngs),
        "blocks.1": MBConv(8, 8, 3, 1, 16, style=STYLE, drop_path=setting.drop_path, rngs=rngs),
        "blocks.11": ConvNorm(8, 12, 3, strides=2, activation=jax.nn.relu6, rngs=rngs),
        "top": ConvNorm(12, 16, activation=jax.nn.relu6, rngs=rngs),
        PRE_LOGITS: GlobalPool(),
    }
    return Backbone(blocks, 16)


TOY = Family(
    name="toy",
    variants={"toy": Variant(shape=None, preprocessing=TOY_PREPROCESSING)},
    build=build_toy,
    layer_names={},
)


@pytest.fixture(scope="module")
def toy() -> Iterator[str]:
    """The name of the toy network, registered for a module, so that `fit` and `cli.main` accept it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._FAMILY_OF, "toy", TOY)
        yield "toy"


@pytest.fixture(scope="session")
def make_toy() -> Callable[..., Classifier]:
    """Makes a network that compiles in a moment: `stem`, `blocks.1`, `blocks.11`, `top`, `pre_logits`."""

    def make(num_classes: int = 3, *, hidden: tuple[int, ...] = (), dropout: float = 0.0, seed: int = 0):
        rngs = NumpyRngs(seed)
        backbone = build_toy(None, Setting(rngs=rngs, drop_path=0.5))
        head = Head(16, num_classes, hidden=hidden, dropout=dropout, rngs=rngs)
        model = Classifier(backbone, head)
        model.eval()
        return model

    return make


@pytest.fixture(scope="session")
def toy_images() -> ImageDataset:
    """48 noisy images of 20 x 24 pixels whose class is their strongest colour."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    images = rng.integers(0, 120, (48, 20, 24, 3))
    images[np.arange(48), :, :, labels] += 100
    return from_arrays(images.astype(np.uint8), labels, ("red", "green", "blue"))


@pytest.fixture
def make_run(
    make_toy: Callable[..., Classifier], toy_images: ImageDataset, tmp_path: Path
) -> Callable[..., Run]:
    """Makes a run of the toy network on the toy images, 36 to train on and 12 held out."""

    def make(*phases: Phase, toy: Classifier | None = None, **settings) -> Run:
        config = TrainConfig(
            images="toy", schedule=Schedule(phases), **{"batch_size": 12, "threads": 1, **settings}
        )
        model = make_toy() if toy is None else toy
        train, evaluation = stratified_split(toy_images, config.val_fraction, config.seed)
        return Run.of(
            model,
            config=config,
            workdir=tmp_path,
            preprocessing=TOY_PREPROCESSING,
            train=train,
            evaluation=evaluation,
        )

    return make


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory, toy_images: ImageDataset) -> Path:
    """The toy images as PNG files, a folder a class."""
    root = tmp_path_factory.mktemp("images")
    for name in toy_images.class_names:
        (root / name).mkdir()
    for index, label in enumerate(toy_images.labels):
        picture = Image.fromarray(toy_images.image(index))
        picture.save(root / toy_images.class_names[label] / f"{index:02}.png")
    return root


@pytest.fixture(scope="session")
def logged() -> Callable[[Path, str], list[dict]]:
    """Returns a function that reads the lines of one kind from the log in a workdir."""

    def read(workdir: Path, kind: str) -> list[dict]:
        found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        return [line for line in found if line["kind"] == kind]

    return read


@pytest.fixture(scope="session")
def photographs() -> Callable[[int], dict[str, np.ndarray]]:
    """Real photographs by name, as Lite0 wants them at an image size: uint8 `(size, size, 3)`."""

    def at(size: int) -> dict[str, np.ndarray]:
        preprocessing = Preprocessing(image_size=size, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
        return {
            name: eval_transform(getattr(skimage.data, name)()[..., :3], preprocessing)
            for name in ("chelsea", "coffee", "astronaut", "rocket")
        }

    return at


@pytest.fixture(scope="session")
def lite0() -> tuple[nnx.GraphDef, Arrays]:
    """EfficientNet-Lite0 with its published weights and its own ImageNet classifier."""
    model = create_model("efficientnet_lite0", 1000, abstract_backbone=True)
    load_pretrained(model, find_spec("efficientnet_lite0"), head=True)
    model.eval()
    graphdef, params, stats = split(model)
    return graphdef, {**params, **stats}


@pytest.fixture(scope="session")
def lite0_logits(lite0: tuple[nnx.GraphDef, Arrays]) -> Callable[[np.ndarray], np.ndarray]:
    """Logits of Lite0 for uint8 images `(batch, size, size, 3)`."""
    graphdef, arrays = lite0
    preprocessing = find_spec("efficientnet_lite0").preprocessing
    forward = jax.jit(lambda arrays, images: merge(graphdef, arrays)(preprocessing.normalize(images)))
    return lambda images: np.asarray(forward(arrays, images))
