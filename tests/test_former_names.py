import importlib
import sys

import pytest

from transfer_jax.data.decode import summarize_image
from transfer_jax.former_names import MODULES


@pytest.mark.parametrize("former", MODULES)
def test_former_module_names_warn_and_work(former, monkeypatch):
    monkeypatch.delitem(sys.modules, former, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{former} is now {MODULES[former]}"):
        module = importlib.import_module(former)
    today = importlib.import_module(MODULES[former])
    public = [name for name in vars(today) if not name.startswith("_")]
    assert public
    assert all(getattr(module, name) is getattr(today, name) for name in public)


def test_names_that_changed_too(monkeypatch):
    monkeypatch.delitem(sys.modules, "transfer_jax.data.images", raising=False)
    with pytest.warns(DeprecationWarning, match="is now"):
        module = importlib.import_module("transfer_jax.data.images")
    assert module.look_at is summarize_image


def test_other_names_are_missing():
    with pytest.raises(ModuleNotFoundError, match=r"transfer_jax\.data\.nowhere"):
        importlib.import_module("transfer_jax.data.nowhere")
