import json
import random
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from transfer_jax.weights.readers import CheckpointError, read_weights

ARRAYS = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "brain": np.arange(4).astype(ml_dtypes.bfloat16),
    "single": np.linspace(0, 1, 5, dtype=np.float32),
    "double": np.array([np.pi]),
    "long": np.array(-3),
    "byte": np.arange(3, dtype=np.uint8),
    "flag": np.array([True, False]),
    "nothing": np.zeros((0, 4), np.float32),
}


def test_arrays(write):
    weights = read_weights(write(save(ARRAYS)))
    assert set(weights) == set(ARRAYS)
    for name, expected in ARRAYS.items():
        assert weights[name].dtype == expected.dtype
        assert not weights[name].flags.writeable
        np.testing.assert_array_equal(weights[name], expected)


def test_unsupported_dtype_is_named(write):
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    with pytest.raises(CheckpointError, match=r"weights\.pth: tensor 'w' has the unsupported dtype F8_E4M3"):
        read_weights(write(struct.pack("<Q", len(header)) + header + b"\0\0"))


def test_an_entry_is_a_prefix_of_the_keys(write):
    raw = save({"student.a": np.zeros(2), "student.b.c": np.ones(3), "students.d": np.ones(4)})
    weights = read_weights(write(raw), entry="student")
    assert {key: array.shape for key, array in weights.items()} == {"a": (2,), "b.c": (3,)}
    with pytest.raises(CheckpointError, match="no entry 'model'; choose from 'student', 'students'"):
        read_weights(write(raw), entry="model")


def test_truncation(write):
    raw = save(ARRAYS)
    for length in range(1, len(raw), 12):
        with pytest.raises(CheckpointError, match=r"weights\.pth: ") as caught:
            read_weights(write(raw[:length]))
        assert "\n" not in str(caught.value)


def test_mutations(write):
    raw = save(ARRAYS)
    draw = random.Random(0)
    read = refused = 0
    for _ in range(300):
        changed = bytearray(raw)
        for _ in range(draw.choice((1, 1, 3))):
            changed[draw.randrange(len(raw))] = draw.randrange(256)
        try:
            weights = read_weights(write(bytes(changed)))
            assert all(array.nbytes <= len(raw) for array in weights.values())
            read += 1
        except CheckpointError:
            refused += 1
    assert min(read, refused) > 10


def file_of(header: dict | bytes, body: int = 16, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(body)


def tensor(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "raw",
    [
        file_of({"a": tensor([4], 0, 16), "b": tensor([4], 0, 16)}),
        file_of({"a": tensor([3], 0, 12), "b": tensor([2], 8, 16)}),
        file_of({"a": tensor([2], 0, 8), "b": tensor([1], 12, 16)}),
        file_of({"a": tensor([8], 0, 32)}),
        file_of({"a": tensor([2], 0, 8)}),
        file_of({"a": tensor([3], 0, 16)}),
        file_of({"a": tensor([-4], 0, 16)}),
        file_of({"a": tensor([2**62, 4], 0, 16)}),
        file_of({"a": tensor([4], 0, 16, "F99")}),
        file_of({"a": tensor([1] * 100 + [4], 0, 16)}),
        file_of({"a": tensor([4], 0, 16), "b": tensor([0, 2**60], 16, 16)}),
        file_of(b'{"a":' + b"[" * 100_000),
        file_of({"a": tensor([4], 0, 16)}, length=2**63),
        file_of({"a": tensor([4], 0, 16)}, length=99_000_000),
        file_of({"a": tensor([4], 0, 16)}, length=0),
        b"\0" * 7,
    ],
    ids=range(16),
)
@pytest.mark.parametrize("format", ["safetensors", None])
def test_lies_are_refused_in_a_line_and_take_no_memory(raw, format, write):
    path = write(raw)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"weights\.pth: ") as caught:
            read_weights(path, format)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert most < 4_000_000


def test_a_key_twice(write):
    one = json.dumps(tensor([4], 0, 16)).encode()
    with pytest.raises(CheckpointError, match=r"names 'a' twice"):
        read_weights(write(file_of(b'{"a":' + one + b',"a":' + one + b"}")))
