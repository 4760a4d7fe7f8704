import dataclasses
import json
import os

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.runs.absolute_paths import same_place, with_absolute_paths
from transfer_jax.runs.workdir import check_workdir, claim, read_config


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder with images, a table and weights; it is also the current folder."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "w.safetensors").touch()
    (tmp_path / "labels.csv").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("images", "photos", "HOME/photos"),
        ("images", "./photos/", "HOME/photos"),
        ("images", "~/photos", "HOME/photos"),
        ("images", "photos/../photos", "HOME/photos"),
        ("images", "folder:photos", "folder:HOME/photos"),
        ("images", "csv:labels.csv", "csv:HOME/labels.csv"),
        ("images", "csv:~/labels.csv?label=a/b", "csv:HOME/labels.csv?label=a/b"),
        ("images", "no folder, but the name of arrays", "no folder, but the name of arrays"),
        ("images", "elpv:sure", "elpv:sure"),
        ("images", "tfds:beans:train[:50%]", "tfds:beans:train[:50%]"),
        ("images", "gs://bucket/photos", "gs://bucket/photos"),
        ("images", "csv:s3://bucket/labels.csv", "csv:s3://bucket/labels.csv"),
        ("weights", "w.safetensors", "HOME/w.safetensors"),
        ("weights", "~/w.safetensors", "HOME/w.safetensors"),
        ("weights", "efficientnet_b0:w.safetensors", "efficientnet_b0:HOME/w.safetensors"),
        *(("weights", same, same) for same in ("auto", "none", "timm", "hf://a/b/w.pth", "https://a/w.pth")),
        ("data_dir", "prepared", "HOME/prepared"),
        ("feature_dir", "~/features", "HOME/features"),
        ("feature_dir", "gs://bucket/features", "gs://bucket/features"),
    ],
)
def test_paths_are_written_out_and_names_are_not(home, field, value, wanted):
    config = TrainConfig(**{"images": "x", field: value})
    found = getattr(with_absolute_paths(config), field)
    assert found == wanted.replace("HOME", str(home))
    assert with_absolute_paths(with_absolute_paths(config)) == with_absolute_paths(config)


@pytest.mark.parametrize("name", ["auto", "none", "elpv"])
def test_a_name_is_a_name_even_if_a_folder_has_it(home, name):
    (home / name).mkdir()
    config = TrainConfig(images="elpv", weights="auto" if name == "elpv" else name)
    assert with_absolute_paths(config) == config


def test_a_run_resumes_and_is_read_from_another_folder(home, monkeypatch):
    config = TrainConfig(images="photos", weights="w.safetensors", feature_dir="f")
    claim(config, home / "run")
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "photos").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    stored = read_config(home / "run")
    assert (stored.images, stored.weights) == (str(home / "photos"), str(home / "w.safetensors"))
    assert check_workdir(stored, home / "run")
    assert check_workdir(dataclasses.replace(stored, images="../photos"), home / "run")
    with pytest.raises(ValueError, match=r"images was .*photos.*, now .*elsewhere/photos"):
        check_workdir(dataclasses.replace(stored, images="photos"), home / "run")


def test_runs_of_earlier_versions_have_relative_paths(home, monkeypatch):
    config = TrainConfig(images="photos", weights="w.safetensors")
    run = home / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config.to_json()))
    assert check_workdir(config, run)
    absolute = with_absolute_paths(config)
    assert check_workdir(absolute, run)
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert check_workdir(absolute, run)
    with pytest.raises(ValueError, match="images was 'photos', now '/other'"):
        check_workdir(dataclasses.replace(absolute, images="/other"), run)


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("photos", "/a/photos", True),
        ("../data/photos", "/a/data/photos", True),
        ("folder:/a/photos", "/a/photos", True),
        ("csv:a.csv", "csv:/x/a.csv", True),
        ("csv:a.csv", "/x/a.csv", False),
        ("photos", "/a/photos2", False),
        ("elpv", "/data/elpv", False),
        ("auto", "/weights/auto", False),
        ("/a/photos", "/b/photos", False),
    ],
)
def test_same_places(before, now, same):
    assert same_place(before, now) is same
    assert same_place(now, before) is same


@pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
def test_a_link_stays_the_path_that_the_user_gave(home):
    (home / "link").symlink_to(home / "photos")
    assert with_absolute_paths(TrainConfig(images="link")).images == str(home / "link")
