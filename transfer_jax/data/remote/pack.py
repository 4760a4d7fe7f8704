"""Packing of images into array_record shards, in threads, resumed where it was stopped."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from transfer_jax.data.contents import Content
from transfer_jax.data.dataset import ImageDataset
from transfer_jax.data.decode import BadImageError
from transfer_jax.data.index import IndexProgress
from transfer_jax.data.index.texts import encode_texts
from transfer_jax.data.remote.packed_records import DATASET, PLAN, VERSION, columns_name, shard_name
from transfer_jax.storage.atomic_write import delete_unfinished, replaced_atomically
from transfer_jax.storage.byte_ranges import storage_error
from transfer_jax.storage.file_lock import InUseError, try_file_lock
from transfer_jax.storage.range_reads import connection
from transfer_jax.storage.remote import is_remote, protocol_and_path

_SHARD_BYTES = 256_000_000
"""Bytes of a shard, if their number is not given."""
_BATCH = 64
"""Images that are read at once."""
_SAMPLE = 64
"""Images whose sizes are looked at if a source does not know them."""
_OPTIONS = "group_size:1,uncompressed"
_LOCK = ".lock"


def pack(
    dataset: ImageDataset,
    out: str | os.PathLike[str],
    *,
    shards: int | None = None,
    threads: int | None = None,
    progress: IndexProgress | None = None,
) -> int:
    """Writes images and their labels into array_record shards, which `records:OUT` reads.

    Images are in a random order, so that each shard is a sample of all. Encoded images are copied as they
    are, and pixels are written as PNG. A shard appears when it is complete: after an interruption, also by
    `kill -9`, the same call continues with the missing shards.

    Args:
        dataset: The images.
        out: A folder, or an address in object storage.
        shards: Number of shards; None makes shards of 256 MB.
        threads: Number of shards that are written at a time; None takes the number of cores, up to 16.
        progress: Receives the progress in images.

    Returns:
        The number of images that were written; 0 if all shards were there.

    Raises:
        ValueError: If the folder has other files, or shards of other images; or the examples are not images.
        BadImageError: If an image is not readable.
        InUseError: If another process packs into the folder.
        OSError: If writing fails, as on a full disk. Complete shards remain.
    """
    dataset.check_images("packing")
    if not len(dataset):
        raise ValueError("there are no images to pack")
    place: _Folder | _Bucket = _Bucket(os.fspath(out)) if is_remote(out) else _Folder(out)
    with place.locked():
        return _Packing(dataset, place, shards).run(threads, progress)


class _Packing:
    """The work of one call of `pack`."""

    def __init__(self, dataset: ImageDataset, place: "_Folder | _Bucket", shards: int | None) -> None:
        self.dataset, self.place = dataset, place
        found = place.names()
        own = {"fingerprint": dataset.fingerprint, "images": len(dataset), "version": VERSION}
        if PLAN in found:
            plan = json.loads(place.read(PLAN))
            if {name: plan.get(name) for name in own} != own:
                raise ValueError(
                    f"{place} has {plan.get('images', 0):,} packed images of another source or version; "
                    "pack into another folder, or delete this one"
                )
            if shards not in (None, plan["shards"]):
                raise ValueError(f"{place} is packed in {plan['shards']} shards, not {shards}")
            self.shards: int = plan["shards"]
        else:
            if foreign := sorted(name for name in found if not name.startswith(".")):
                raise ValueError(f"{place} has other files, such as {foreign[0]!r}; pack into a new folder")
            self.shards = shards or max(1, -(-_bytes(dataset) // _SHARD_BYTES))
            if not 1 <= self.shards <= len(dataset):
                raise ValueError(f"shards must be in 1..{len(dataset):,}, the number of images, got {shards}")
            place.write(PLAN, json.dumps({**own, "shards": self.shards}).encode())
        self.done = {*found}
        order = np.random.default_rng(0).permutation(len(dataset))
        self.rows = np.array_split(order, self.shards)

    def run(self, threads: int | None, progress: IndexProgress | None) -> int:
        """Writes the missing shards, and then the facts of all."""
        names = [shard_name(number, self.shards) for number in range(self.shards)]
        missing = [
            number
            for number, name in enumerate(names)
            if name not in self.done or columns_name(name) not in self.done
        ]
        count = sum(len(self.rows[number]) for number in missing)
        if missing:
            self._progress, self._stop, self._lock = progress, threading.Event(), threading.Lock()
            if progress is not None:
                progress.start("packing images", len(self.dataset), done=len(self.dataset) - count)
            try:
                self._write_all(missing, threads or min(os.cpu_count() or 1, 16))
            finally:
                if progress is not None:
                    progress.finish()
        if missing or DATASET not in self.done:
            self.place.write(DATASET, json.dumps(self._facts(), indent=1).encode())
        return count

    def _facts(self) -> dict[str, Any]:
        dataset = self.dataset
        digest = hashlib.sha256(f"packed {VERSION} {dataset.fingerprint} {self.shards}".encode()).hexdigest()
        return {
            "version": VERSION,
            "images": len(dataset),
            "shards": self.shards,
            "task": dataset.task.kind,
            "classes": [*dataset.class_names],
            "validation": dataset.held_out is not None,
            "test": dataset.test is not None,
            "fingerprint": digest,
            "notes": [note for note in dataset.notes if "left out" in note],
        }

    def _write_all(self, numbers: list[int], threads: int) -> None:
        upcoming = iter(numbers)
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(threads) as pool:
            try:
                while True:
                    for number in upcoming:
                        pending.add(pool.submit(self._write_shard, number))
                        if len(pending) >= threads:
                            break
                    if not pending:
                        return
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _write_shard(self, number: int) -> None:
        from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

        rows, name = self.rows[number], shard_name(number, self.shards)
        sizes = np.zeros(len(rows), np.int64)
        with self.place.new_file(name) as path:
            writer = array_record_module.ArrayRecordWriter(str(path), _OPTIONS)
            try:
                for first in range(0, len(rows), _BATCH):
                    if self._stop.is_set():
                        raise InterruptedError("packing was stopped")
                    batch = rows[first : first + _BATCH]
                    for place, content in enumerate(self.dataset.contents(batch)):
                        encoded = _encoded(content)
                        sizes[first + place] = len(encoded)
                        writer.write(encoded)
                    if not writer.ok():
                        raise OSError(f"{self.place}/{name} is not writable; is the disk full?")
                    if self._progress is not None:
                        with self._lock:
                            self._progress.advance(len(batch))
                writer.close()
            except RuntimeError as error:  # As for a full disk.
                raise _not_writable(f"{self.place}/{name}", error) from error
            finally:
                if writer.is_open():
                    with contextlib.suppress(RuntimeError):
                        writer.close()
            least = int(sizes.sum())
            if path.stat().st_size < least:
                raise OSError(f"{self.place}/{name} is incomplete; is the disk full?")
            self.place.write(columns_name(name), self._columns(rows, sizes))

    def _columns(self, rows: np.ndarray, sizes: np.ndarray) -> bytes:
        """Returns the content of the file beside a shard."""
        dataset = self.dataset
        part = np.zeros(len(rows), np.int8)
        for number, mask in ((1, dataset.held_out), (2, dataset.test)):
            if mask is not None:
                part[mask[rows]] = number
        arrays = {"labels": dataset.labels[rows], "part": part, "size": sizes}
        if dataset.weights is not None:
            arrays["weights"] = dataset.weights[rows]
        texts = {"names": [dataset.names[int(row)] for row in rows]}
        if dataset.groups is not None:
            texts["groups"] = dataset.groups[rows].tolist()
        for name, each in texts.items():
            content, lengths = encode_texts(each)
            arrays[f"{name} bytes"] = content
            arrays[f"{name} offsets"] = np.concatenate(([0], np.cumsum(lengths)))
        file = io.BytesIO()
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        return file.getvalue()


def _bytes(dataset: ImageDataset) -> int:
    """Returns the number of bytes of all images; an estimate if the source does not know them."""
    if dataset.sizes is not None:
        return int(dataset.sizes.sum())
    rows = np.linspace(0, len(dataset) - 1, min(_SAMPLE, len(dataset))).astype(np.int64)
    return round(np.mean([len(_encoded(each)) for each in dataset.contents(rows)]) * len(dataset))


def _encoded(content: Content | BadImageError) -> bytes:
    """Returns an encoded image; PNG of pixels."""
    if isinstance(content, BadImageError):
        raise content
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    if not isinstance(content, np.ndarray):
        raise TypeError(f"expected an image, got {type(content).__name__}")
    file = io.BytesIO()
    Image.fromarray(content[..., 0] if content.ndim == 3 and content.shape[-1] == 1 else content).save(
        file, "PNG"
    )
    return file.getvalue()


@dataclasses.dataclass(frozen=True)
class _Folder:
    """A local folder of shards."""

    given: str | os.PathLike[str]

    def __str__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        return Path(self.given).expanduser()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        self.path.mkdir(parents=True, exist_ok=True)
        with try_file_lock(self.path / _LOCK) as held:
            if not held:
                raise InUseError(f"another process packs into {self}; wait until it ends")
            for file in self.path.glob(".images-*.tmp"):  # Of a process that was killed: the lock is free.
                file.unlink(missing_ok=True)
            delete_unfinished(self.path)
            yield

    def names(self) -> set[str]:
        return {entry.name for entry in self.path.iterdir()}

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        with replaced_atomically(self.path / name) as unfinished:
            unfinished.write_bytes(content)

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        with replaced_atomically(self.path / name) as unfinished:
            yield unfinished


@dataclasses.dataclass(frozen=True)
class _Bucket:
    """A folder of shards in object storage; a shard is written on this machine, and uploaded."""

    address: str

    def __str__(self) -> str:
        return self.address.rstrip("/")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def names(self) -> set[str]:
        kind, path = protocol_and_path(self.address)
        system = connection(kind)
        try:
            system.invalidate_cache()
            return {str(name).rpartition("/")[2] for name in system.ls(path, detail=False)}
        except FileNotFoundError:
            return set()
        except Exception as error:
            raise storage_error(self.address, error) from error

    def read(self, name: str) -> bytes:
        system, path = self._at(name)
        return system.cat_file(path)

    def write(self, name: str, content: bytes) -> None:
        system, path = self._at(name)
        try:
            system.pipe_file(path, content)
        except Exception as error:
            raise _not_writable(f"{self}/{name}", error) from error

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="transfer_jax_pack") as folder:
            path = Path(folder) / name
            yield path
            system, there = self._at(name)
            try:
                system.put_file(str(path), there)
            except Exception as error:
                raise _not_writable(f"{self}/{name}", error) from error

    def _at(self, name: str) -> tuple[Any, str]:
        kind, path = protocol_and_path(self.address)
        return connection(kind), f"{path}/{name}"


def _not_writable(place: str, error: Exception) -> OSError:
    text = " ".join(str(error).split())[:300]
    return OSError(f"{place} is not writable: {type(error).__name__}: {text}")
