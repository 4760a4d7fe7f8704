"""Steps of checkpoints that Orbax writes directly to Google Cloud Storage, each process its own shards."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transfer_jax.storage.remote import DIRECT, bucket_folder


class OrbaxBucket:
    """The folder of the steps in object storage, past the local copy.

    Args:
        system: The fsspec file system.
        path: The path of the folder, without the protocol.
    """

    def __init__(self, system: Any, path: str) -> None:
        self._system = system
        self._path = path
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def address(self, step: int) -> str:
        """Returns the address of a step."""
        return f"gs://{self._path}/{step}"

    def steps(self) -> list[str]:
        """Returns the names of all folders, also of incomplete steps."""
        self._system.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            return [name.rstrip("/").rsplit("/", 1)[-1] for name in self._system.ls(self._path, detail=False)]
        return []

    def objects(self, step: int) -> dict[str, list[Any]]:
        """Returns size and checksum of the objects of a step, by their paths in it, as the bucket has them.

        Google Cloud Storage computes the checksum of each object when it is written, and refuses an upload
        with another one. Nothing is read for it.
        """
        self._system.invalidate_cache()
        folder = f"{self._path}/{step}"
        found = self._system.find(folder, detail=True)
        return {
            name.removeprefix(f"{folder}/"): [int(info["size"]), info.get("crc32c") or info.get("md5Hash")]
            for name, info in found.items()
        }

    def delete(self, name: str) -> None:
        """Deletes the folder of a step; a missing one is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(f"{self._path}/{name}", recursive=True)

    def finish_later(self, finish: Callable[[], None]) -> None:
        """Calls a function in the background; `wait` raises its error."""

        def run() -> None:
            try:
                finish()
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Waits until the step that is being saved is complete.

        Raises:
            Exception: The error of saving it.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def orbax_bucket(directory: Path) -> OrbaxBucket | None:
    """Returns the folder that Orbax writes for a folder of checkpoints; None if that is no `gs://` address.

    Orbax has no writer for `s3://`.
    """
    found = bucket_folder(directory)
    if found is None:
        return None
    system, path = found
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return OrbaxBucket(system, f"{path}/{DIRECT}") if "gs" in protocols else None
