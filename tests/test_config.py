import dataclasses
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.config import GROUPS, ComputeConfig, TrainConfig, groups, load_config, shipped_configs
from transfer_jax.data import Augmentation
from transfer_jax.freezing import Phase, Schedule, five_steps, frozen_base

CONFIG = TrainConfig(
    images="folder",
    schedule=five_steps("top(1) & ~role('norm')"),
    augmentation=Augmentation(crop_scale=(0.5, 0.9), color_jitter=0.1),
    hidden=(64, 32),
    image_size=96,
    compiler_options=("xla_cpu_enable_fast_math=false",),
)


@pytest.mark.parametrize("config", [TrainConfig(images="elpv"), CONFIG])
def test_configs_survive_json(config):
    text = json.dumps(config.to_json())
    again = TrainConfig.from_json(json.loads(text))
    assert again == config
    assert hash(again) == hash(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "float16"}, r"precision must be one of \('float32', 'bfloat16'\), got 'float16'"),
        ({"class_weights": "auto"}, r"class_weights must be one of \('none', 'balanced'\)"),
        ({"on_bad_image": "warn"}, r"on_bad_image must be one of \('error', 'skip'\)"),
        ({"val_fraction": 0.0}, r"val_fraction must be in \(0, 1\), got 0\.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"eval_every": -1}, "eval_every must be at least 0"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds must be at least 0"),
        ({"read_processes": -1}, "read_processes must be at least 0"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"compiler_options": ("fast",)}, "compiler_options must be like xla_name=value, got 'fast'"),
        ({"batch_size": 32, "accumulate": 5}, "batch_size 32 is not divisible by accumulate 5"),
    ],
)
def test_configs_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


PHASE = Phase(name="a", train="head", epochs=1, learning_rate=1e-3)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"images": Path("a b", "%")}, "a b/%"),
        ({"weights": Path("w.pt")}, "w.pt"),
        ({"feature_dir": Path("features")}, "features"),
        ({"trackers": "tensorboard"}, ("tensorboard",)),
        ({"trackers": ["wandb", np.str_("mlflow")]}, ("wandb", "mlflow")),
        ({"compiler_options": "xla_a=b"}, ("xla_a=b",)),
        ({"hidden": 64}, (64,)),
        ({"hidden": np.array([64, 32])}, (64, 32)),
        ({"batch_size": np.int64(8)}, 8),
        ({"batch_size": 8.0}, 8),
        ({"seed": jnp.int32(3)}, 3),
        ({"label_smoothing": np.float32(0.25)}, 0.25),
        ({"taps": np.True_}, True),
        ({"remat": True}, "block"),
        ({"remat": False}, "none"),
        ({"scan_layers": 1}, True),
        ({"schedule": PHASE}, Schedule((PHASE,))),
        ({"schedule": [PHASE]}, Schedule((PHASE,))),
    ],
)
def test_values_are_converted_and_survive_json(change, expected):
    config = TrainConfig(**{"images": "x", **change})
    found = getattr(config, *change)
    assert found == expected
    assert type(found) is type(expected)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taps": "stages.2"}, "taps must be True or False, got 'stages.2'"),
        ({"batch_size": "32"}, "batch_size must be a whole number, got '32'"),
        ({"batch_size": 8.5}, "batch_size must be a whole number, got 8.5"),
        ({"batch_size": True}, "batch_size must be a whole number, got True"),
        ({"label_smoothing": "0.1"}, "label_smoothing must be a number, got '0.1'"),
        ({"crop_fraction": float("nan")}, "crop_fraction must be a number, got nan"),
        ({"crop_fraction": 0}, r"crop_fraction must be in \(0, 1\], got 0"),
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"hidden": [64, "32"]}, "hidden must be a whole number, got '32'"),
        ({"trackers": "tensorboad"}, "got 'tensorboad'"),
        ({"trackers": {"wandb"}}, "trackers must be a tuple or a list"),
        ({"images": ["photos"]}, r"got list; a dataset in memory is given to fit\(\.\.\., dataset="),
        ({"schedule": five_steps}, "schedule must be a Schedule, as `five_steps"),
        ({"schedule": ["head"]}, r"or a list of phases, got \['head'\]"),
        ({"augmentation": {"mixup": 0.2}}, "augmentation must be an Augmentation, got {'mixup': 0.2}"),
    ],
)
def test_values_of_other_types_are_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"images": "x", **change})


@pytest.mark.parametrize("mixing", [{"mixup": 0.2}, {"cutmix": 1.0}])
def test_mixing_needs_live_images(mixing):
    augmentation = Augmentation(**mixing)
    with pytest.raises(ValueError, match="phase 'top' uses a cache, but mixup and cutmix need live images"):
        TrainConfig(images="x", schedule=five_steps("top(1)", views=2), augmentation=augmentation)
    assert TrainConfig(images="x", schedule=five_steps("top(1)", views=0), augmentation=augmentation).mixes
    assert TrainConfig(images="x", schedule=frozen_base(), augmentation=augmentation).mixes
    assert not CONFIG.mixes


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_configs_load_by_name_and_by_path(name):
    config = load_config(name)
    assert config == load_config(str(shipped_configs()[name]))


def test_three_experiments_are_shipped():
    assert {"elpv_feature_extraction", "elpv_frozen_base", "elpv_five_steps"} <= set(shipped_configs())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no config '.*mine\.py': give a file or one of the shipped configs: elpv_"),
        ("x = 1", r"mine\.py must define `config`, a TrainConfig; it defines NoneType"),
        ("config = {}", "it defines dict"),
    ],
)
def test_a_missing_or_invalid_config_file_is_an_error(tmp_path, content, message):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_config(str(path))


def test_a_config_in_a_python_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from transfer_jax import TrainConfig, frozen_base\n"
        "config = TrainConfig(images='here', schedule=frozen_base(epochs=2))\n"
    )
    assert load_config(str(tmp_path / "mine.py")).schedule.phases[0].epochs == 2


def test_the_config_json_of_a_run_is_a_config(tmp_path):
    config = TrainConfig(images="elpv", hidden=(8,), schedule=five_steps("top(3)"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_json()))
    assert load_config(str(path)) == config
    path.write_text('{"images": "elpv"}')
    with pytest.raises(
        ValueError, match=r"config.json is not a config that this version can read: 'schedule'"
    ):
        load_config(str(path))


def test_the_default_schedule_is_the_five_steps():
    assert TrainConfig(images="x").schedule == five_steps("top(2)")
    assert isinstance(TrainConfig(images="x").schedule, Schedule)
    assert all(isinstance(phase, Phase) for phase in CONFIG.schedule.phases)


def test_each_field_is_in_one_group_and_documented_there():
    fields = [field.name for field in dataclasses.fields(TrainConfig)]
    assert [name for names in groups().values() for name in names] == fields
    for name, names in groups().items():
        text = inspect.getdoc(GROUPS[name])
        assert text is not None
        assert [line.split(":")[0].strip() for line in text.splitlines() if re.match(r"    \w+: ", line)] == [
            *names
        ]


def test_fields_are_flat_in_json():
    assert {*TrainConfig(images="x").to_json()} == {field.name for field in dataclasses.fields(TrainConfig)}


def test_a_group_checks_its_fields_alone():
    with pytest.raises(ValueError, match="fsdp must be at least 1, got 0"):
        ComputeConfig(fsdp=0)


def test_importing_configs_imports_no_jax():
    heavy = {"jax", "flax", "optax", "grain", "pyarrow", "tensorflow_datasets"}
    code = f"import sys, transfer_jax.config; print(*sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
