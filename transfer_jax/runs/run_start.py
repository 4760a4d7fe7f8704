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
from transfer_jax.data.contents import name_blocks
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
_LARGE, _READ_OF_LARGE = 100_000, 64
"""Number of images above which the rule is 2, and how many of them are read."""
_SIZE_BYTES, _HASH_BYTES = 8, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartStart:
    """The training, validation or test images that a run starts with.

    Attributes:
        count: Number of images.
        files: Hash of the names and classes, in any order; empty for rule 2.
        order: Hash of the names and classes, in their order.
        sizes: Hash of the sizes of the files; empty if they are not known.
        content: Hash of the content of the images, of a sample of them if there are many.
        rule: How the hashes are computed: 1 from lines of text, 2 from arrays, with less memory and fewer
            images read. Runs of earlier versions have 1.
    """

    count: int
    files: str
    order: str
    sizes: str
    content: str
    rule: int = 1

    @classmethod
    def of(cls, dataset: ImageDataset, like: "PartStart | None" = None) -> "PartStart":
        """Returns the identity of images; times and folders of the files do not matter.

        Args:
            dataset: The images.
            like: The identity that it is compared with, whose rule is used; None chooses the rule.
        """
        rule = (2 if len(dataset) > _LARGE else 1) if like is None else like.rule
        return cls(
            count=len(dataset),
            files=_hash(b"".join(sorted(_lines(dataset)))) if rule == 1 else "",
            order=cls.names_of(dataset, rule),
            sizes="" if dataset.sizes is None else _hash(dataset.sizes.astype("<i8").tobytes()),
            content=_content(dataset, _READ_IMAGES if rule == 1 else _READ_OF_LARGE),
            rule=rule,
        )

    @staticmethod
    def names_of(dataset: ImageDataset, rule: int = 1) -> str:
        """Returns the hash of the names and classes of images, in their order: `order`."""
        if rule == 1:
            return _hash(b"".join(_lines(dataset)))
        digest = hashlib.sha256("\0".join(dataset.class_names).encode("utf-8", "surrogateescape"))
        labels = dataset.labels
        for first in range(0, len(labels), _LARGE):
            digest.update(np.ascontiguousarray(labels[first : first + _LARGE]).tobytes())
        for block in name_blocks(dataset.names):
            digest.update(block)
        return digest.hexdigest()

    def change(self, now: "PartStart", part: str) -> str | None:
        """Returns the difference to other images, in words; None if there is none."""
        if now.count != self.count:
            return f"{counted(self.count, f'{part} image')} then, {now.count:,} now"
        if now.files != self.files:
            return f"{part} images with other names or classes"
        if not self.files and now.order != self.order:
            return f"{part} images with other names or classes, or in another order"
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
    def of(cls, run: Run, then: "RunStart | None" = None) -> "RunStart":
        """Returns the start of a run whose arrays are loaded; all processes must call it.

        Args:
            run: The run.
            then: The start that it is compared with; None for a new run.
        """
        known = then.parts if then is not None else {}
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
            train=PartStart.of(run.train, known.get("training")),
            evaluation=PartStart.of(run.evaluation, known.get("validation")),
            test=None if run.test is None else PartStart.of(run.test, known.get("test")),
            program=_program(run),
        )

    @property
    def parts(self) -> dict[str, PartStart]:
        """The images by part: `training`, `validation` and, if there are some, `test`."""
        parts = {"training": self.train, "validation": self.evaluation}
        return parts if self.test is None else {**parts, "test": self.test}

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(part.count for part in self.parts.values())

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
        self.check_images(now.parts, images, workdir)

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
        known = self.parts
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
    then = RunStart.from_json(position.start) if resumed else None
    now, images = RunStart.of(run, then), run.config.images
    if then is not None:
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
        known = start.parts
        now = {part: PartStart.of(each, known.get(part)) for part, each in parts.items()}
        start.check_images(now, images, workdir)


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


def _content(dataset: ImageDataset, most: int) -> str:
    """Returns a hash of the content and the weights of images, read in a random order up to the limits.

    Each process reads a part of them, so that no image is read twice. All processes must call it.

    Args:
        dataset: The images.
        most: Largest number of images that are read.
    """
    digest, left = hashlib.sha256(), _READ_BYTES
    if dataset.weights is not None:
        digest.update(np.asarray(dataset.weights, "<f4").tobytes())
    rng, count = np.random.default_rng(0), len(dataset)
    # A permutation of a large set takes as much memory as its labels.
    order = rng.permutation(count)[:most] if most == _READ_IMAGES else rng.integers(count, size=most)
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(order), 64):
            block = order[first : first + 64]
            mine = block[processes.index() :: processes.count()]
            hashes = b"".join(pool.map(functools.partial(_image_hash, dataset), mine))
            rows = np.frombuffer(hashes, np.uint8).reshape(-1, _SIZE_BYTES + _HASH_BYTES)
            rows = processes.gather_interleaved(rows, len(block))
            digest.update(rows[:, _SIZE_BYTES:].tobytes())
            left -= int(np.ascontiguousarray(rows[:, :_SIZE_BYTES]).view("<i8").sum())
            if left <= 0:
                break
    return digest.hexdigest()


def _image_hash(dataset: ImageDataset, index: int) -> bytes:
    """Returns the number of bytes of an image, as 8 bytes, and a SHA-256 hash of them."""
    try:
        content = dataset.read(int(index))
    except (OSError, ValueError):
        content = b""  # The run fails later, or leaves the image out.
    if isinstance(content, Mapping):
        size = sum(len(name) + array.nbytes for name, array in content.items())
        return size.to_bytes(_SIZE_BYTES, "little") + content_hash(content)
    if isinstance(content, np.ndarray):
        content = f"{content.shape} ".encode() + np.ascontiguousarray(content).tobytes()
    return len(content).to_bytes(_SIZE_BYTES, "little") + hashlib.sha256(content).digest()


def _lines(dataset: ImageDataset) -> list[bytes]:
    """Returns the name and the class of each image."""
    labels = dataset.task.label_texts(dataset.labels)
    return [
        f"{name}\0{label}\n".encode("utf-8", "surrogateescape")
        for name, label in zip(dataset.names, labels, strict=True)
    ]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
