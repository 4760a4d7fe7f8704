"""The lock of a workdir, which a training holds, so that no second one writes there at the same time."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transfer_jax.distributed import processes
from transfer_jax.storage import lock_owner, workdir_files
from transfer_jax.storage.atomic_write import delete_unfinished, write_text
from transfer_jax.storage.file_lock import InUseError, try_file_lock
from transfer_jax.storage.remote import claimed, display_path, is_mirrored

_PATIENCE = 3.0
"""Seconds to wait for a training that is about to end, such as one that was killed."""
_FOLDERS = (
    "",
    f"{workdir_files.CHECKPOINTS}/records",
    workdir_files.FREEZE_RECORDS,
    workdir_files.MISCLASSIFIED,
    workdir_files.MODEL,
    workdir_files.SALIENCY_MAPS,
)
"""The folders of a workdir in which a training that was killed may leave temporary files."""
_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def workdir_lock(workdir: Path) -> Iterator[None]:
    """Holds the lock of a workdir, in the first process for all processes of the run.

    The system releases the lock when the process ends, also if it is killed, so that a restart succeeds at
    once. In object storage there are no locks: the newest training takes over, and an earlier one on another
    machine ends with an error at its next checkpoint.

    Args:
        workdir: The folder, which is created if needed.

    Raises:
        InUseError: If another process holds the lock. The message names the host, the process and the time.
    """
    with contextlib.ExitStack() as stack:
        refusal = ""
        if processes.is_first():
            workdir.mkdir(parents=True, exist_ok=True)
            if stack.enter_context(try_file_lock(workdir / workdir_files.LOCK, _PATIENCE)):
                for folder in _FOLDERS:
                    delete_unfinished(workdir / folder)
                stack.enter_context(_owner_file(workdir))
            else:
                refusal = _refusal(workdir)
        if processes.sum_over_processes(np.array([bool(refusal)], np.int32))[0]:
            raise InUseError(refusal or f"the workdir {display_path(workdir)} is in use by another training")
        yield


@contextlib.contextmanager
def _owner_file(workdir: Path) -> Iterator[None]:
    """Writes the record of this process, and deletes it at the end."""
    path = workdir / workdir_files.OWNER
    write_text(path, lock_owner.own_record())
    try:
        if is_mirrored(path):
            with claimed(path) as earlier:
                if lock_owner.is_other_host(earlier):
                    _logger.warning(
                        "%s was in use by %s; if that training still runs, it ends at its next checkpoint",
                        display_path(workdir),
                        lock_owner.describe(earlier),
                    )
                yield
        else:
            yield
    finally:
        path.unlink(missing_ok=True)


def _refusal(workdir: Path) -> str:
    path = workdir / workdir_files.OWNER
    record = path.read_bytes() if path.is_file() else None
    advice = "wait until it ends, stop it, or use another workdir"
    if lock_owner.is_other_host(record):
        advice += f"; if it no longer runs, delete {workdir / workdir_files.LOCK}"
    owner = lock_owner.describe(record)
    return f"the workdir {display_path(workdir)} is in use by another training: {owner}; {advice}"
