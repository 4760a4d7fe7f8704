import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from transfer_jax.storage import lock_owner
from transfer_jax.storage import workdir_lock as module
from transfer_jax.storage.file_lock import InUseError, file_lock
from transfer_jax.storage.workdir_lock import workdir_lock


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_first_training_is_named_to_the_second(tmp_path):
    workdir = tmp_path / "runs" / "a"
    with workdir_lock(workdir):
        assert names(workdir) == [".lock", "in_use.json"]
        known = json.loads((workdir / "in_use.json").read_bytes())
        with pytest.raises(InUseError) as error, workdir_lock(workdir):
            pass
    message = str(error.value)
    owner = f"process {os.getpid()} on {known['host']}, since {known['started']}; wait until it ends, "
    assert message.startswith(f"the workdir {workdir} is in use by another training: {owner}")
    assert "delete" not in message, "its process is known to live"
    assert names(workdir) == [".lock"]
    with workdir_lock(workdir):
        pass


def test_a_lock_of_another_machine_comes_with_the_way_to_remove_it(tmp_path):
    record = json.dumps({"host": "elsewhere", "process": 7, "started": "2026-01-02 03:04:05 UTC"})
    (tmp_path / "in_use.json").write_text(record)
    wanted = r"process 7 on elsewhere, since 2026-01-02 03:04:05 UTC; .* delete .*/\.lock$"
    with file_lock(tmp_path / ".lock"), pytest.raises(InUseError, match=wanted), workdir_lock(tmp_path):
        pass


@pytest.mark.parametrize("record", [None, b"", b"\0\xff", b"[]", b"{}"])
def test_a_lock_without_a_readable_record(tmp_path, record):
    if record is not None:
        (tmp_path / "in_use.json").write_bytes(record)
    with (
        file_lock(tmp_path / ".lock"),
        pytest.raises(InUseError, match="in use by another training: another process; wait"),
        workdir_lock(tmp_path),
    ):
        pass


def test_records_and_locks_of_dead_processes_do_not_matter(tmp_path):
    (tmp_path / ".lock").write_text("")
    (tmp_path / "in_use.json").write_text('{"host": "elsewhere", "process": 1, "started": "2999-01-01"}')
    with workdir_lock(tmp_path):
        assert json.loads((tmp_path / "in_use.json").read_bytes())["process"] == os.getpid()
    assert names(tmp_path) == [".lock"]


def test_a_training_deletes_what_killed_ones_have_left(tmp_path):
    names = ("model/.tmpAbCdEf", "checkpoints/records/.3.json.0123abcd.tmp", ".config.json.0123abcd.tmp")
    kept = ("model/.DS_Store", "features/.labels.npy.0123abcd.tmp", "checkpoints/steps/3/.tmpAbCdEf")
    for name in (*names, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9, 1e9))
    with workdir_lock(tmp_path):
        pass
    assert [name for name in (*names, *kept) if (tmp_path / name).exists()] == [*kept]


def train(workdir: Path, ready: Any) -> None:
    with workdir_lock(workdir):
        ready.set()
        signal.pause()


@pytest.mark.extended
def test_a_killed_training_leaves_nothing_in_the_way(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=train, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(InUseError, match=f"process {process.pid} on"), workdir_lock(tmp_path):
        pass
    process.kill()
    process.join()
    with workdir_lock(tmp_path):
        assert json.loads((tmp_path / "in_use.json").read_bytes())["process"] == os.getpid()


def test_descriptions_of_owners():
    assert lock_owner.describe(lock_owner.own_record().encode()).startswith(f"process {os.getpid()} on ")
    assert not lock_owner.is_other_host(lock_owner.own_record().encode())
    assert lock_owner.describe(None) == "another process"
