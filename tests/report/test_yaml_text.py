import pytest

from transfer_jax.report.yaml_text import yaml_text

yaml = pytest.importorskip("yaml")

TEXTS = [
    "plain",
    "two words",
    "",
    "yes",
    "Null",
    "1.5",
    "a: b",
    "- x",
    "#1",
    "é\u2028\n'\"",
    "{}",
    " a ",
    "NO",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_read_back(text):
    assert yaml.safe_load(yaml_text({"name": text, "list": [text]})) == {"name": text, "list": [text]}


def test_nested_values_are_read_back():
    metrics = [{"type": "f1", "value": 0.25}, {"type": "log_loss", "value": 1e-7}]
    content = {"tags": ["a", "b"], "index": [{"name": "x", "results": [{"metrics": metrics, "n": None}]}]}
    text = yaml_text(content)
    assert yaml.safe_load(text) == content
    assert text.startswith("tags:\n  - a\n  - b\nindex:\n  - name: x\n    results:\n      - metrics:\n")
