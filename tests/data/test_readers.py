import sys

import numpy as np
import pytest

from transfer_jax.data.readers import Readers, can_start_processes, choose_readers, pickled_size


@pytest.mark.parametrize(
    ("cores", "accelerated", "expected"),
    [
        (1, True, Readers(2, 0)),
        (2, False, Readers(2, 0)),
        (8, True, Readers(6, 0)),
        (24, False, Readers(6, 0)),
        (24, True, Readers(1, 20)),
        (224, True, Readers(1, 48)),
    ],
)
def test_readers_follow_the_cores(cores, accelerated, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/transfer-jax", "train"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert choose_readers(cores=cores, accelerated=accelerated, source=np.square) == expected
    assert choose_readers(3, 5, cores=cores, accelerated=accelerated) == Readers(3, 5)
    assert choose_readers(None, 5, cores=cores) == Readers(1, 5)


def test_scripts_and_sources_in_memory_are_read_in_threads(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert not can_start_processes()
    assert choose_readers(cores=24, source=np.square) == Readers(6, 0)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/transfer-jax"])
    assert choose_readers(cores=24, source=lambda: None) == Readers(6, 0)
    assert choose_readers(cores=24, source=np.zeros(30_000_000)) == Readers(6, 0)


def test_pickled_size():
    assert pickled_size(lambda: None) is None
    assert 8_000_000 < (pickled_size(np.zeros(1_000_000)) or 0) < 8_001_000
