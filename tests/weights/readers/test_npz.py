import io
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from transfer_jax.weights.readers import CheckpointError, read_weights

ARRAYS = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "single/kernel": np.linspace(0, 1, 5, dtype=np.float32),
    "other way": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(4, dtype=">i4"),
    "one": np.array(-3),
    "flag": np.array([True, False]),
    "complex": np.array([1j], np.complex64),
    "nothing": np.zeros((0, 4), np.float32),
}


def saved(arrays: dict, save=np.savez) -> bytes:
    file = io.BytesIO()
    save(file, allow_pickle=True, **arrays)
    return file.getvalue()


def described(descr: str, order: str, shape: str, version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(header)) + header
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays(save, write):
    weights = read_weights(write(saved(ARRAYS, save)))
    assert list(weights) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        array = weights[name]
        assert array.dtype == expected.dtype.newbyteorder("=")
        assert weights.infos[name] == (array.shape, str(array.dtype))
        assert array.flags.c_contiguous
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, expected)


def test_bfloat16_without_a_name(write):
    array = np.arange(4).astype(ml_dtypes.bfloat16)
    found = read_weights(write(saved({"w": array.view("V2")})))["w"]
    assert found.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [("params/", "step"), ("opt/target/", "opt/state/step"), ("params/img/", "params/txt/x"), ("", "head/x")],
)
def test_parameters_are_found_among_the_rest(prefix, beside, write):
    weights = read_weights(write(saved({f"{prefix}cls": np.ones(3), beside: np.ones(1)})))
    assert ("cls" in weights, len(weights)) == (True, 1 if prefix else 2)


def test_an_entry_is_taken(write):
    path = write(saved({"params/txt/w": np.ones(2), "params/img/w": np.zeros(3), "t": np.ones(1)}))
    assert read_weights(path, entry="params/txt").infos["w"].shape == (2,)
    assert set(read_weights(path, entry="")) == {"params/txt/w", "params/img/w", "t"}
    with pytest.raises(CheckpointError, match="no entry 'ema'; choose from 'params', 't'"):
        read_weights(path, entry="ema")


def test_two_copies_of_the_parameters_are_ambiguous(write):
    arrays = {"params/w": np.ones(2), "params/b/k": np.ones(1), "step": np.array(3)}
    optimizer = {f"opt_state/mu/{key}": value for key, value in arrays.items()}
    assert set(read_weights(write(saved({**arrays, **optimizer})))) == {"w", "b/k"}
    path = write(saved({**arrays, "ema_params/w": np.zeros(2), "ema_params/b/k": np.zeros(1)}))
    with pytest.raises(
        CheckpointError, match=r"'params', 'ema_params'; choose one .* --weights-entry params"
    ):
        read_weights(path)
    assert read_weights(path, entry="ema_params")["w"].tolist() == [0, 0]


def test_objects_are_left_out_unread(write):
    class Bomb:
        def __reduce__(self):
            return print, ("executed",)

    others = {"history": np.array([Bomb()], object), "classes": np.array(["cat", "dog"])}
    others |= {"saved": np.array("2026-11-29", "datetime64[s]"), "log": np.zeros(2, "f4,i4")}
    weights = read_weights(write(saved({"w": np.ones(2), **others})))
    assert list(weights) == ["w"]
    assert weights["w"].tolist() == [1, 1]
    with pytest.raises(CheckpointError, match="holds no arrays of numbers; save each parameter as an array"):
        read_weights(write(saved(others)))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (described("'<f4'", "False", "(2,)") + bytes(4), "'w' has 4 bytes, but .* takes 8"),
        (described("'<f4'", "False", f"({2**40}, 0, {2**40})"), "'w' has 0 bytes, but"),
        (described("'<f4'", "False", "(1000000000000, 8)") + bytes(64), "'w' has 64 bytes"),
        (described("'<f4'", "False", "(-1,)") + bytes(4), "does not describe an array"),
        (described("'<f4'", "False", "(1,) + (2,)") + bytes(8), "does not describe an array"),
        (described("'|O8'", "False", "(1,)") + bytes(8), "holds no arrays of numbers"),
        (described("'|V1'", "False", "(1,)") + bytes(1), "unsupported dtype V1"),
        (
            described("'<f4'", "False", f"({'1, ' * 35})") + bytes(4),
            "35 dimensions, more than the 32",
        ),
        (
            described("'<f4'", "False", "(1,)").replace(b"'<f4'", b"'<f4'" + b" " * 5000, 1),
            "bytes|does not describe",
        ),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4 + b" " * 99, r"header of array 'w' has 4294967307 bytes"),
        (b"\x93NUMPY\x09\x00" + bytes(99), "does not begin with the header"),
        (b"\x93NUM", "does not begin with the header"),
        (b"", "does not begin with the header"),
    ],
)
@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_headers_are_checked(member, message, kind, craft, write):
    with pytest.raises(CheckpointError, match=rf"weights\.pth: .*{message}") as caught:
        read_weights(write(craft.zip_members({"w.npy": member}, kind)), "npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_versions(version, craft, write):
    member = described("'<f4'", "False", "(1L,)", version) + np.float32(2.5).tobytes()
    assert read_weights(write(craft.zip_members({"w.npy": member})))["w"].tolist() == [2.5]


def test_bombs_are_refused(write):
    raw = saved({"w": np.zeros(30_000_000, np.uint8)}, np.savez_compressed)
    assert len(raw) < 60_000
    with pytest.raises(CheckpointError, match=r"arrays take 30000000 bytes, too many for a file of \d+"):
        read_weights(write(raw))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_values_are_noticed(save, write):
    raw = bytearray(saved({"w": np.random.default_rng(0).normal(size=2000)}, save))
    raw[9000] ^= 1
    weights = read_weights(write(bytes(raw)))
    with pytest.raises(CheckpointError, match=r"weights\.pth: damaged"):
        weights["w"].sum()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.npy", "a.npy"], "two members 'a.npy'"),
        (["../a.npy"], r"member with the path '\.\./a.npy'"),
        (["/a.npy"], "member with the path '/a.npy'"),
        (["a.npy", "code.py"], "'code.py' does not end"),
        ([], "empty|no arrays|does not"),
    ],
)
def test_names_are_checked(names, message, write):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, described("'<f4'", "False", "()") + bytes(4))
    with pytest.raises(CheckpointError, match=message):
        read_weights(write(file.getvalue()), "npz")
