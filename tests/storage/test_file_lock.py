import errno
import logging
import multiprocessing
import os
import signal
import stat
from pathlib import Path
from typing import Any

import filelock
import pytest

from transfer_jax.storage import file_lock as module
from transfer_jax.storage.file_lock import file_lock, is_locked, try_file_lock


def hold(path: Path, ready: Any) -> None:
    with file_lock(path):
        ready.set()
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock `lock` in the test's folder."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "lock", ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


@pytest.mark.extended
def test_a_lock_excludes_other_processes_until_its_process_is_killed(tmp_path, holder):
    path = tmp_path / "lock"
    assert is_locked(path)
    with try_file_lock(path) as locked:
        assert not locked
    holder.kill()
    holder.join()
    assert not is_locked(path)
    with try_file_lock(path) as locked:
        assert locked


@pytest.mark.extended
def test_a_second_process_waits(tmp_path, holder):
    waited = []

    def waiting() -> None:
        waited.append(True)
        os.kill(holder.pid, signal.SIGKILL)

    with file_lock(tmp_path / "lock", waiting):
        assert waited == [True]


def test_a_lock_of_the_same_process_counts_as_held_but_not_by_another(tmp_path):
    path = tmp_path / "locks" / "x"
    assert not is_locked(path)
    assert not path.parent.exists(), "a question writes nothing"
    with file_lock(path, lambda: pytest.fail("waited")):
        assert not is_locked(path)
        with try_file_lock(path) as locked:
            assert not locked
    with try_file_lock(path) as locked:
        assert locked


def test_an_error_inside_releases_the_lock(tmp_path):
    path = tmp_path / "x"
    for _ in range(2):
        with pytest.raises(KeyError), file_lock(path, lambda: pytest.fail("waited")):
            raise KeyError


@pytest.mark.parametrize("mask", [0o022, 0o002])
def test_lock_files_have_the_permissions_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        with file_lock(tmp_path / "x"):
            assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask
    finally:
        os.umask(before)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EROFS, errno.EOPNOTSUPP, errno.EACCES])
def test_a_disk_without_locks_leads_to_one_warning(tmp_path, monkeypatch, caplog, number):
    def unsupported(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.FileLock, "acquire", unsupported)
    monkeypatch.setattr(module, "_warned", set())
    with caplog.at_level(logging.WARNING, "transfer_jax"):
        for _ in range(2):
            with file_lock(tmp_path / "x"), try_file_lock(tmp_path / "y") as locked:
                assert locked
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"{tmp_path} is not locked against other processes"
    ]
    assert not is_locked(tmp_path / "x")
