"""Folders of a user with and without a usable home."""

import os
import tempfile
from pathlib import Path

import pytest

from transfer_jax import user_cache as module
from transfer_jax.user_cache import can_create, user_cache


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of this user for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary" / f"transfer_jax-{os.getuid()}"


def test_a_home_that_does_not_exist_yet(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "new home %d"))
    assert user_cache("xla") == tmp_path / "new home %d" / ".cache" / "transfer_jax" / "xla"
    assert not (tmp_path / "new home %d").exists()


def test_a_user_without_a_home(monkeypatch, temporary):
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(module.Path, "home", unknown)
    assert user_cache("xla") == temporary / "xla"


def test_a_read_only_home(monkeypatch, tmp_path, temporary):
    """A folder in it that exists is used: it may have been filled for all users."""
    (tmp_path / "home" / ".cache" / "transfer_jax" / "data").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert user_cache("xla") == temporary / "xla"
    assert user_cache("data") == tmp_path / "home" / ".cache" / "transfer_jax" / "data"


def test_a_home_of_another_user(monkeypatch, tmp_path, temporary):
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module.Path, "stat", denied)
    monkeypatch.setattr(module.Path, "is_dir", denied)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert user_cache("xla") == temporary / "xla"


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    assert not can_create(tmp_path / "file" / "folder")
    assert can_create(tmp_path / "a" / "b")
