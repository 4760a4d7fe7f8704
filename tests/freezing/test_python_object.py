import copy
import json
import subprocess
import sys
from typing import Any

import optax
import pytest

from transfer_jax.fields import is_stored_object, shown_object
from transfer_jax.freezing import Phase, Schedule, five_steps
from transfer_jax.freezing.phase_optimizer import OPTIMIZER
from transfer_jax.freezing.python_object import (
    MissingObjectError,
    PythonObject,
    import_object,
    same_object,
)

MAKE = """
import optax
from transfer_jax.freezing.phase_optimizer import OPTIMIZER

def decays(params):
    return {path: "kernel" in path for path in params}

def make(norm=1.0):
    clip = optax.clip_by_global_norm(norm)
    inner = optax.adamw(optax.cosine_decay_schedule(1e-3, 100), weight_decay=0.1, mask=decays)
    return OPTIMIZER.read(optax.chain(clip, optax.apply_if_finite(inner, 3)))
"""


def made(norm: float = 1.0) -> PythonObject:
    namespace: dict = {}
    exec(MAKE, namespace)
    return namespace["make"](norm)


def stored(value: PythonObject) -> PythonObject:
    return PythonObject.from_json(json.loads(json.dumps(value.to_json())), "optimizer", str)


def test_objects_with_equal_programs_are_equal_in_any_process():
    code = f"{MAKE}\nprint(make().digest)"
    digest = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert made().digest == digest
    assert made() == made() == stored(made())
    assert hash(made()) == hash(stored(made()))
    assert made() != made(2.0)
    assert made() != "adamw"


def test_objects_for_one_model_only_are_compared_by_their_parts():
    def labelled(rate: float) -> str | PythonObject:
        transforms: Any = {"a": optax.sgd(rate), "b": optax.set_to_zero()}
        return OPTIMIZER.read(optax.multi_transform(transforms, {"x": "a", "y": "b"}))

    assert labelled(0.1) == labelled(0.1)
    assert labelled(0.1) != labelled(0.2)


def test_an_object_of_json_without_a_name_is_missing():
    found = stored(made())
    assert (found.is_available, made().is_available) == (False, True)
    with pytest.raises(
        MissingObjectError, match=r"the optimizer chain\(clip_by_global_norm\(max_norm=1.0\), "
    ):
        _ = found.value
    assert str(found) == str(made())
    assert found.to_json() == made().to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"object": "optax:adamx"}, "missing: 'optax:adamx': the module optax has no 'adamx'"),
        ({"object": "no_module:x"}, "missing: 'no_module:x' cannot be imported: ModuleNotFoundError"),
        ({"digest": "0"}, "optax:adam has changed since the run started"),
    ],
)
def test_names_that_give_another_object_raise(changes, message):
    named: Any = OPTIMIZER.read("optax:adam")
    found: Any = OPTIMIZER.read({**named.to_json(), **changes})
    with pytest.raises(MissingObjectError, match=message):
        _ = found.value


def test_other_versions_of_jax_compare_descriptions_and_sources():
    one, other = made().to_json(), made(2.0).to_json()
    assert same_object(one, {**one, "digest": "0", "versions": "jax 0.1"})
    assert not same_object(one, {**one, "digest": "0"})
    assert not same_object(one, {**other, "versions": "jax 0.1"})
    assert same_object("a", "a")
    assert not same_object("adamw", one)


def test_stored_objects_are_shown_by_their_description():
    assert shown_object(made().to_json()).startswith("chain(")
    assert shown_object("adamw") == "adamw"
    assert not is_stored_object({"object": "a"})


def test_import_object(tmp_path, monkeypatch):
    assert import_object("optax.contrib:muon") is optax.contrib.muon
    (tmp_path / "module_in_folder.py").write_text("class A:\n    b = 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    assert import_object("module_in_folder:A.b") == 3
    (tmp_path / "broken_module.py").write_text("1 / 0")
    with pytest.raises(ValueError, match="'broken_module:x' cannot be imported: ZeroDivisionError"):
        import_object("broken_module:x")


def test_schedules_with_objects_are_values():
    phase = Phase(name="a", train="head", epochs=1, optimizer=made(), shape=optax.constant_schedule(0.5))
    schedule = five_steps("top(2)") + Schedule((phase,))
    again = Schedule.from_json(schedule.to_json())
    assert again == schedule == copy.deepcopy(schedule)
    assert hash(again) == hash(schedule)
    assert str(again) == str(schedule)
    assert again.to_json() == schedule.to_json()
