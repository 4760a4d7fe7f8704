"""The start of a run, which a resumed run must have too: its weights, its preprocessing and its images."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transfer_jax.counted import counted
from transfer_jax.data import ImageDataset
from transfer_jax.data.example_reader import content_hash
from transfer_jax.distributed import processes
from transfer_jax.freezing.freeze_check import array_hashes, combined_hash
from transfer_jax.models import PRE_LOGITS
from transfer_jax.models.flat_arrays import merge
from transfer_jax.runs.images import images_digest
from transfer_jax.runs.run_progress import RunProgress
from transfer_jax.storage import workdir_files
from transfer_jax.training.run import Run

_READ_BYTES, _READ_IMAGES = 1 << 26, 2000
"""Limits of what is read of each part of the images: all of a small set, a sample of a large one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartStart:
    """The training, validation or test images that a run starts with.

    Attributes:
        count: Number of images.
        files: Hash of the names and classes, in any order.
        order: Hash of the names and classes, in their order.
        sizes: Hash of the sizes of the files; empty if they are not known.
        content: Hash of the content of the images, of a sample of them if there are many.
    """

    count: int
    files: str
    order: str
    sizes: str
    content: str

    @classmethod
    def of(cls, dataset: ImageDataset) -> "PartStart":
        """Returns the identity of images; times and folders of the files do not matter."""
        lines = _lines(dataset)
        return cls(
            count=len(dataset),
            files=_hash(b"".join(sorted(lines))),
            order=cls.names_of(dataset),
            sizes="" if dataset.sizes is None else _hash(dataset.sizes.astype("<i8").tobytes()),
            content=_content(dataset),
        )

    @staticmethod
    def names_of(dataset: ImageDataset) -> str:
        """Returns the hash of the names and classes of images, in their order: `order`."""
        return _hash(b"".join(_lines(dataset)))

    def change(self, now: "PartStart", part: str) -> str | None:
        """Returns the difference to other images, in words; None if there is none."""
        if now.count != self.count:
            return f"{counted(self.count, f'{part} image')} then, {now.count:,} now"
        if now.files != self.files:
            return f"{part} images with other names or classes"
        if now.order != self.order:
            return f"the same {part} images in another order"
        known = self.sizes and now.sizes
        if (known and now.sizes != self.sizes) or now.content != self.content:
            return f"{part} images with the same names and other contents"
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunStart:
    """The weights, the preprocessing and the images that a run starts with.

    Attributes:
        weights: Name of the set of weights that was used, or the path of a file; `none` for random weights.
        file: The file or folder that was read; empty for random weights.
        sha256: Hash of the arrays that were loaded; empty for random weights.
        initial: Hash of the arrays with random initial values, such as the head. They are rounded to half
            precision first, because the last bits may differ between machines.
        preprocessing: The preprocessing of the images, with the overrides of the config.
        train: The training images.
        evaluation: The validation images.
        test: The test images; None if there are none, or an earlier version started the run.
        program: The version of JAX and a hash of the operations of a model of the user's own; empty for the
            networks of this package.
    """

    weights: str
    file: str
    sha256: str
    initial: str
    preprocessing: dict[str, Any]
    train: PartStart
    evaluation: PartStart
    program: str = ""
    test: PartStart | None = None

    @classmethod
    def of(cls, run: Run) -> "RunStart":
        """Returns the start of a run whose arrays are loaded; all processes must call it."""
        weights = run.weights
        assert weights is not None  # `load_network` sets it.
        loaded = {path: array for path, array in run.arrays.items() if path in weights.loaded}
        initial = {
            path: processes.to_host(array).astype(np.float16)
            for path, array in run.arrays.items()
            if path in weights.initial
        }
        return cls(
            weights=weights.name,
            file=weights.file,
            sha256=combined_hash(array_hashes(loaded)) if loaded else "",
            initial=combined_hash(array_hashes(initial)) if initial else "",
            preprocessing=json.loads(json.dumps(dataclasses.asdict(run.preprocessing))),
            train=PartStart.of(run.train),
            evaluation=PartStart.of(run.evaluation),
            test=None if run.test is None else PartStart.of(run.test),
            program=_program(run),
        )

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(part.count for part in (self.train, self.evaluation, self.test) if part is not None)

    def to_json(self) -> dict[str, Any]:
        """Returns the values of `start.json` and of a checkpoint's progress."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunStart | None":
        """Returns the start that `to_json` wrote; None for a run of a version that did not record it."""
        if not values:
            return None
        names = ("train", "evaluation", *(["test"] if values.get("test") else []))
        parts = {name: PartStart(**values[name]) for name in names}
        return cls(**{**values, **parts})

    def check(self, now: "RunStart", images: str, workdir: Path) -> None:
        """Checks that a run continues from the same weights, preprocessing and images.

        Args:
            now: The start with today's files.
            images: The images of the config, for messages.
            workdir: The run's folder, for messages.

        Raises:
            ValueError: If something differs; the message names both.
        """
        self.check_weights(now, workdir)
        changes = [
            f"{name} was {value!r}, now {now.preprocessing.get(name)!r}"
            for name, value in self.preprocessing.items()
            if value != now.preprocessing.get(name)
        ]
        if changes:
            raise ValueError(
                f"the preprocessing of the weights {now.weights!r} is not the one that {workdir} was started "
                f"with: {'; '.join(changes)}. Restore it, or use another workdir."
            )
        found = {"training": now.train, "validation": now.evaluation}
        found |= {"test": now.test} if now.test is not None else {}
        self.check_images(found, images, workdir)

    def check_weights(self, now: "RunStart", workdir: Path) -> None:
        """Checks the weights only; see `check`."""
        if now.sha256 != self.sha256:
            raise ValueError(
                f"{workdir} was started with the weights {_described(self)}, but now they are "
                f"{_described(now)}. Restore them, or use another workdir."
            )
        version, _, program = now.program.partition(" ")
        if self.program.startswith(f"{version} ") and self.program != now.program:
            raise ValueError(
                f"the model computes other operations ({program[:12]}…) than when {workdir} was started "
                f"({self.program.partition(' ')[2][:12]}…). Restore its code, or use another workdir."
            )
        if now.initial != self.initial:
            raise ValueError(
                f"the random initial values of the network differ from those that {workdir} was started "
                "with, probably because of another version of transfer_jax or NumPy; "
                f"{workdir_files.ENVIRONMENT} has the versions. Install them, or use another workdir."
            )

    def check_images(self, now: Mapping[str, PartStart], images: str, workdir: Path) -> None:
        """Checks the images only; see `check`.

        Args:
            now: The images by part: `training`, `validation`, `test`.
            images: The images of the config, for messages.
            workdir: The run's folder, for messages.
        """
        then = {"training": self.train, "validation": self.evaluation, "test": self.test}
        known = {part: start for part, start in then.items() if start is not None}
        changes = [known[part].change(each, part) for part, each in now.items() if part in known]
        if found := [change for change in changes if change]:
            raise ValueError(
                f"{images!r} has other images than when {workdir} was started: {'; '.join(found)}. "
                "Restore them, or use another workdir."
            )


def check_start(run: Run, position: RunProgress, *, resumed: bool) -> RunStart:
    """Checks that a run continues from what it started with, and records that in its progress.

    Args:
        run: The run, with its arrays at the start.
        position: The progress of the run; it is updated.
        resumed: Whether the run continues from a checkpoint.

    Returns:
        The start.

    Raises:
        ValueError: If the weights, the preprocessing or the images differ; the message names both.
    """
    now, images = RunStart.of(run), run.config.images
    if resumed and (then := RunStart.from_json(position.start)) is not None:
        then.check(now, images, run.workdir)
        now = then
    elif resumed and position.images != images_digest(run.train, run.evaluation):
        raise ValueError(
            f"{images!r} has other images than when {run.workdir} was started; "
            "restore them, or use another workdir"
        )
    position.start = now.to_json()
    return now


def check_images(workdir: Path, images: str, parts: Mapping[str, ImageDataset]) -> None:
    """Checks that images are those that the run in a workdir started with, if it recorded them.

    Args:
        workdir: The run's folder.
        images: The images of the config, for messages.
        parts: The images by part: `training`, `validation`, `test`.

    Raises:
        ValueError: If they are others; the message says in what they differ.
    """
    if (start := read_start(workdir)) is not None:
        start.check_images({part: PartStart.of(each) for part, each in parts.items()}, images, workdir)


def read_start(workdir: Path) -> RunStart | None:
    """Returns the start of the run in a workdir; None if an earlier version started it, or nothing did.

    Raises:
        ValueError: If the file is damaged.
    """
    path = workdir / workdir_files.START
    try:
        return RunStart.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; restore it, or delete it") from None


def _program(run: Run) -> str:
    """Returns `RunStart.program`."""
    hashes = merge(run.graphdef, run.arrays).backbone.program_hashes(PRE_LOGITS)
    return f"{jax.__version__} {combined_hash(hashes)}" if hashes else ""


def _described(start: RunStart) -> str:
    if not start.sha256:
        return repr(start.weights)
    file = f" ({start.file})" if start.file != start.weights else ""
    return f"{start.weights!r}{file} of SHA-256 {start.sha256[:12]}…"


def _content(dataset: ImageDataset) -> str:
    """Returns a hash of the content and the weights of images, read in a random order up to the limits."""
    digest, left = hashlib.sha256(), _READ_BYTES
    if dataset.weights is not None:
        digest.update(np.asarray(dataset.weights, "<f4").tobytes())
    order = np.random.default_rng(0).permutation(len(dataset))[:_READ_IMAGES]
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(order), 64):
            for size, found in pool.map(functools.partial(_image_hash, dataset), order[first : first + 64]):
                digest.update(found)
                left -= size
            if left <= 0:
                break
    return digest.hexdigest()


def _image_hash(dataset: ImageDataset, index: int) -> tuple[int, bytes]:
    """Returns the number of bytes of an image and a hash of them."""
    try:
        content = dataset.read(int(index))
    except (OSError, ValueError):
        content = b""  # The run fails later, or leaves the image out.
    if isinstance(content, Mapping):
        size = sum(len(name) + array.nbytes for name, array in content.items())
        return size, content_hash(content)
    if isinstance(content, np.ndarray):
        content = f"{content.shape} ".encode() + np.ascontiguousarray(content).tobytes()
    return len(content), hashlib.sha256(content).digest()


def _lines(dataset: ImageDataset) -> list[bytes]:
    """Returns the name and the class of each image."""
    labels = dataset.task.label_texts(dataset.labels)
    return [
        f"{name}\0{label}\n".encode("utf-8", "surrogateescape")
        for name, label in zip(dataset.names, labels, strict=True)
    ]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
