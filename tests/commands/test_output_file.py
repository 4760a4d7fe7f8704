import contextlib
import os
from pathlib import Path

import pytest

from transfer_jax.commands.output_file import check_output_file


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "b.json", "c.d.json"])
def test_files_that_can_be_written(tmp_path, name):
    check_output_file(tmp_path / name, (".csv", ".json"))
    check_output_file(None, (".csv",))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("a.txt", ValueError, r"--out must end in \.csv or \.json, got "),
        ("csv", ValueError, "must end in"),
        ("nowhere/a.csv", FileNotFoundError, "the folder .*nowhere does not exist"),
        ("folder.csv", IsADirectoryError, "this is a folder; give the name of a file"),
        ("file.csv/a.csv", FileNotFoundError, "does not exist"),
    ],
)
def test_files_that_cannot_be_written(tmp_path, name, error, message):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.csv").touch()
    with pytest.raises(error, match=message):
        check_output_file(tmp_path / name, (".csv", ".json"))


def test_read_only_folders(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=r"--out a\.csv: the folder \. is read-only"):
        check_output_file(Path("a.csv"), (".csv",))


@pytest.mark.parametrize(
    ("name", "refused"),
    [("predictions.csv", True), ("start.json", True), ("model/model.json", True), ("mine.csv", False)],
)
def test_files_of_a_run_are_not_replaced(tmp_path, name, refused):
    (tmp_path / "model").mkdir()
    for each in ("config.json", "metrics.jsonl", name):
        (tmp_path / each).touch()
    with pytest.raises(ValueError, match="is a file of the run in") if refused else contextlib.nullcontext():
        check_output_file(tmp_path / name, (".csv", ".json"))
    (tmp_path / "config.json").unlink()  # Then it is no run.
    check_output_file(tmp_path / name, (".csv", ".json"))
