import numpy as np
import pytest

from transfer_jax.weights.readers.lazy_weights import ArrayInfo, LazyWeights

INFO = ArrayInfo((3,), "int64")


def test_arrays_are_read_when_asked_for():
    read = []

    def load():
        read.append(1)
        return np.arange(3)

    weights = LazyWeights("file.pth", {"b": load, "a": load}, {"b": INFO, "a": INFO})
    assert list(weights) == ["b", "a"]
    assert len(weights) == 2
    assert "a" in weights
    assert "c" not in weights
    assert repr(weights) == "LazyWeights('file.pth', 2 arrays)"
    assert not read
    assert weights["a"].tolist() == [0, 1, 2]
    assert len(read) == 1
    with pytest.raises(KeyError):
        weights["c"]


def test_arrays_are_read_only():
    array = LazyWeights("file", {"a": lambda: np.arange(3)}, {"a": INFO})["a"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
