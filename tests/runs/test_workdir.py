import dataclasses
import json

import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import five_steps
from transfer_jax.runs.workdir import check_workdir, claim, read_config

CONFIG = TrainConfig(images="elpv", schedule=five_steps("top(2)"))


def test_a_new_folder_becomes_the_workdir(tmp_path):
    workdir = tmp_path / "a" / "b"
    assert check_workdir(CONFIG, workdir) is False
    assert not workdir.exists()
    claim(CONFIG, workdir)
    assert check_workdir(CONFIG, workdir) is True
    assert read_config(workdir) == CONFIG
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    "change",
    [{"checkpoint_seconds": 1.0}, {"threads": 7}, {"eval_every": 3}, {"data_dir": "d"}, {"feature_dir": "f"}],
)
def test_fields_that_do_not_change_the_result_may_differ(tmp_path, change):
    claim(CONFIG, tmp_path)
    assert check_workdir(dataclasses.replace(CONFIG, **change), tmp_path) is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "was started with another config: seed was 0, now 1. Use another workdir"),
        ({"hidden": (3,)}, r"hidden.*None.*3"),
        ({"schedule": five_steps("top(3)")}, r"schedule\.phases\.1\.train was 'top\(2\)', now 'top\(3\)'"),
    ],
)
def test_another_config_is_refused_and_differences_are_named(tmp_path, change, message):
    claim(CONFIG, tmp_path)
    with pytest.raises(ValueError, match=message):
        check_workdir(dataclasses.replace(CONFIG, **change), tmp_path)
    assert read_config(tmp_path) == CONFIG


def test_a_field_that_an_older_config_lacks_has_its_default(tmp_path):
    claim(CONFIG, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["taps"], values["schedule"]["phases"][0]["keep"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert check_workdir(CONFIG, tmp_path) is True
    with pytest.raises(ValueError, match="taps was False, now True"):
        check_workdir(dataclasses.replace(CONFIG, taps=True), tmp_path)


def test_force_accepts_another_config(tmp_path):
    claim(CONFIG, tmp_path)
    other = dataclasses.replace(CONFIG, seed=1)
    assert check_workdir(other, tmp_path, force=True) is True
    claim(other, tmp_path)
    assert read_config(tmp_path) == other


def test_many_differences_are_abridged(tmp_path):
    claim(CONFIG, tmp_path)
    change = {
        "seed": 1,
        "batch_size": 8,
        "model": "m",
        "weights": "w",
        "precision": "bfloat16",
        "ema_decay": 0.5,
    }
    with pytest.raises(ValueError, match=r"another config: .*and 1 more\. Use"):
        check_workdir(dataclasses.replace(CONFIG, **change), tmp_path)


@pytest.mark.parametrize("content", ["", "{", "\x80"])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    for read in (lambda: read_config(tmp_path), lambda: check_workdir(CONFIG, tmp_path)):
        with pytest.raises(ValueError, match=r"config\.json is damaged"):
            read()


def test_a_config_of_another_version_is_named(tmp_path):
    claim(CONFIG, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "future": 1}))
    with pytest.raises(ValueError, match=r"config\.json is not a config that this version can read.*future"):
        read_config(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is not the folder of a run: it has no config\.json"):
        read_config(tmp_path)


def test_unusable_workdirs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"run cannot be created: .*file is a file"):
        check_workdir(CONFIG, tmp_path / "file" / "run")
    images = tmp_path / "images"
    images.mkdir()
    for source in (str(images), f"folder:{images}"):
        with pytest.raises(ValueError, match="is inside the folder of the images"):
            check_workdir(dataclasses.replace(CONFIG, images=source), images / "run")
    assert check_workdir(dataclasses.replace(CONFIG, images=str(images)), tmp_path / "run") is False


def test_only_a_new_workdir_must_be_writable(tmp_path, monkeypatch):
    """A finished run is only read."""
    claim(CONFIG, tmp_path / "run")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert check_workdir(CONFIG, tmp_path / "run") is True
    with pytest.raises(PermissionError, match="new is not writable"):
        check_workdir(CONFIG, tmp_path / "new")
