import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from transfer_jax.storage.atomic_write import (
    delete_unfinished,
    replaced_atomically,
    sha256,
    write_atomically,
    write_text,
)


@pytest.fixture
def umask():
    """Sets the umask of this process for a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o027])
def test_new_files_have_the_permissions_of_the_umask(tmp_path, umask, mask):
    umask(mask)
    write_text(tmp_path / "new.json", "{}")
    with replaced_atomically(tmp_path / "other") as unfinished:
        save_file({"x": np.zeros(3)}, unfinished)  # It replaces the file by one with permissions of its own.
    assert mode(tmp_path / "new.json") == mode(tmp_path / "other") == 0o666 & ~mask


@pytest.mark.parametrize("kept", [0o600, 0o664, 0o640])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, umask, kept):
    path = tmp_path / "config.json"
    path.write_text("old")
    path.chmod(kept)
    write_text(path, "new")
    assert path.read_text() == "new"
    assert mode(path) == kept


@pytest.mark.parametrize("name", ["a" * 250, "ä" * 125, "\U0001f600" * 62, os.fsdecode(b"caf\xe9.csv"), ".x"])
def test_names_of_any_length_and_script(tmp_path, name):
    path = tmp_path / name
    assert write_atomically(path, lambda file: file.write(b"content")) == sha256(path)
    assert path.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported_with_the_file_and_changes_nothing(tmp_path):
    path = tmp_path / "model.json"
    path.write_text("before")

    def write(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device") as error:
        write_atomically(path, write)
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_or_device_is_written_and_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_text(path, "content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        write_text(tmp_path / "folder", "")
    assert error.value.filename == str(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_missing_folder_is_reported_with_the_file(tmp_path):
    path = tmp_path / "missing" / "file.txt"
    with pytest.raises(FileNotFoundError) as error:
        write_text(path, "")
    assert error.value.filename == str(path)


def test_temporary_files_of_killed_processes_are_deleted_and_others_are_not(tmp_path):
    old = (".config.json.0123abcd.tmp", ".tmpjwChJF")
    names = (*old, ".DS_Store", "._config.json", "x.tmp", ".x.tmp", ".~lock.csv#", ".tmp")
    for name in (*names, ".new.json.0123abcd.tmp"):
        (tmp_path / name).write_text("")
    for name in names:
        os.utime(tmp_path / name, (1e9, 1e9))
    delete_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*names[2:], ".new.json.0123abcd.tmp"}
    delete_unfinished(tmp_path / "missing")
