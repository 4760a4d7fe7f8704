import importlib.util
import logging
import sys

import pytest

from transfer_jax.extras import MissingExtraError, explain, optional, require


@pytest.fixture
def without(monkeypatch):
    """Hides a module, as if it were not installed."""

    def hide(name):
        find = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda each: None if each == name else find(each))
        monkeypatch.setitem(sys.modules, name, None)

    return hide


def test_a_missing_package_names_its_extra(without):
    without("vl_convert")
    require("matplotlib")
    with pytest.raises(
        MissingExtraError, match=r"^vl-convert-python is not installed; pip install 'transfer_jax\[report\]'$"
    ):
        require("matplotlib", "vl_convert")


def test_a_failed_import_is_explained(without):
    without("sklearn")
    with pytest.raises(ImportError) as raised:
        import sklearn.metrics  # noqa: F401
    assert explain(raised.value) == "scikit-learn is not installed; pip install 'transfer_jax[study]'"
    assert explain(ModuleNotFoundError("no teapot", name="teapot")) == "no teapot"
    assert explain(ValueError("two\n lines")) == "two lines"
    assert explain(ValueError()) == "ValueError"


def test_an_optional_output_may_fail(caplog):
    with caplog.at_level(logging.WARNING):
        with optional("report.html"):
            raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2")
        with optional("plots"):
            raise ValueError("broken")
        with optional("nothing"):
            pass
    assert [record.getMessage() for record in caplog.records] == [
        "No report.html: jinja2 is not installed; pip install 'transfer_jax[report]'. "
        "All other results are saved.",
        "No plots: ValueError: broken. All other results are saved.",
    ]


def test_an_interruption_is_raised():
    with pytest.raises(KeyboardInterrupt), optional("plots"):
        raise KeyboardInterrupt
