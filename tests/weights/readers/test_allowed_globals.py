import ml_dtypes
import numpy as np
import pytest

from transfer_jax.weights.readers import CheckpointError, read_weights
from transfer_jax.weights.readers.allowed_globals import ALLOWED, resolve

KINDS = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
    "UntypedStorage": np.uint8,
    "QInt8Storage": np.int8,
    "QUInt8Storage": np.uint8,
    "QInt32Storage": np.int32,
}


@pytest.mark.parametrize(("kind", "dtype"), KINDS.items())
def test_storage_types(kind, dtype, craft, write, container):
    values = np.array([0, 1, 1, 0], dtype)
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 4, kind), (2, 2), (2, 1))})
    options = {"itemsize": values.itemsize} if container is craft.legacy_file else {}
    array = read_weights(write(container(body, {"0": values.tobytes()}, **options)))["w"]
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, values.reshape(2, 2))


def test_bytes_of_a_bool_storage_become_valid_bools(craft, write):
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 3, "BoolStorage"), (3,), (1,))})
    array = read_weights(write(craft.zip_file(body, {"0": b"\x00\x02\xff"})))["w"]
    assert array.view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("shape", "stride", "offset", "expected"),
    [
        ((3, 4), (4, 1), 0, np.arange(12).reshape(3, 4)),
        ((4, 3), (1, 4), 0, np.arange(12).reshape(3, 4).T),
        ((2, 2), (4, 2), 1, [[1, 3], [5, 7]]),
        ((2, 3), (0, 1), 9, [[9, 10, 11]] * 2),
        ((), (), 11, 11),
        ((1, 12), (2**61, 1), 0, [np.arange(12)]),
        ((0, 5), (5, 1), 0, np.zeros((0, 5))),
        ((3, 2, 2), (1, 3, 6), 0, np.arange(12).reshape(2, 2, 3).T),
    ],
)
def test_strided_tensors(shape, stride, offset, expected, craft, write, container):
    body = craft.mapping(
        {
            "w": craft.tensor(craft.storage("0", 12), shape, stride, offset),
            "shared": craft.tensor(craft.storage("0", 12), (12,), (1,)),
        }
    )
    weights = read_weights(write(container(body, {"0": np.arange(12, dtype=np.float32).tobytes()})))
    array = weights["w"]
    assert array.shape == shape
    np.testing.assert_array_equal(array, expected)
    assert array.flags.c_contiguous
    assert array.flags.aligned
    assert not array.flags.writeable
    np.testing.assert_array_equal(weights["shared"], np.arange(12))


@pytest.mark.parametrize(
    ("shape", "stride", "offset", "message"),
    [
        ((13,), (1,), 0, "ends at byte 52 of storage '0', which has 48"),
        ((2,), (12,), 0, "ends at byte 52"),
        ((), (), 12, "ends at byte 52"),
        ((2**20, 2**20), (2**20, 1), 0, "ends at byte"),
        ((12,), (1,), -1, "non-negative integer"),
        ((12,), (-1,), 11, "non-negative integer"),
        ((-1,), (1,), 0, "non-negative integer"),
        ((1,), (1,), 2**63, "non-negative integer"),
        ((2,), (2**800,), 0, "non-negative integer"),
        ((3, 4), (1,), 0, "two tuples of the same length"),
        ((1,) * 33, (1,) * 33, 0, "33 dimensions"),
        ((2**40,), (0,), 0, "takes 4398046511104 bytes, more than the file"),
        ((2**31, 2**31), (0, 0), 0, "more than the file"),
    ],
)
def test_impossible_tensors(shape, stride, offset, message, craft, write, container):
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 12), shape, stride, offset)})
    with pytest.raises(CheckpointError, match=message):
        read_weights(write(container(body, {"0": bytes(48)})))


def v3(craft, *rest, kind="UntypedStorage", shape=(2,), stride=(1,), offset=1):
    function = craft.name("torch._utils", "_rebuild_tensor_v3")
    stored = craft.storage("0", 6, kind)
    place = craft.integer(offset), craft.sizes(shape), craft.sizes(stride)
    return craft.mapping({"w": craft.call(function, stored, *place, b"\x89", b"N", *rest)})


def test_untyped_storage_with_a_dtype(craft, write):
    raw = np.array([7, 500, 65535], np.uint16).tobytes()
    array = read_weights(write(craft.zip_file(v3(craft, craft.name("torch", "uint16")), {"0": raw})))["w"]
    assert array.dtype == np.uint16
    assert array.tolist() == [500, 65535]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda c: v3(c, c.name("torch", "uint16"), offset=2), "ends at byte 8 of storage '0', which has 6"),
        (lambda c: v3(c, c.name("torch", "FloatStorage")), "dtype of a tensor"),
        (lambda c: v3(c, b"N"), "has no dtype"),
        (lambda c: v3(c), "has 6 arguments, expected 7 to 8"),
        (lambda c: v3(c, c.name("torch", "uint8"), c.mapping({"conj": b"\x88"})), "conjugated"),
        (lambda c: c.call(c.name("torch._utils", "_rebuild_tensor_v2"), b"N"), "has 1 arguments"),
        (lambda c: c.call(c.name("torch._utils", "_rebuild_tensor"), *[b"N"] * 4), "expected a storage"),
        (
            lambda c: c.call(c.name("torch._utils", "_rebuild_parameter"), *[b"N"] * 3),
            "expected a tensor",
        ),
        (lambda c: c.call(c.name("torch.nn.parameter", "Parameter"), b"N"), "has 1 arguments, expected 0"),
        (lambda c: c.call(c.name("torch", "Size"), b"N"), "not a size"),
        (lambda c: c.call(c.name("collections", "OrderedDict"), b"N"), "not a list of pairs"),
        (lambda c: c.call(c.name("collections", "OrderedDict"), c.listed(b")")), "not a list of pairs"),
        (
            lambda c: c.call(c.name("collections", "OrderedDict"), c.listed(c.sequence(b"]", b"N"))),
            "a list as a dictionary key",
        ),
    ],
)
def test_arguments_are_checked(body, message, craft, write):
    with pytest.raises(CheckpointError, match=message):
        read_weights(write(craft.zip_file(body(craft), {"0": bytes(6)})))


@pytest.mark.parametrize(
    "identity",
    [
        lambda c: b"N",
        lambda c: c.text("storage"),
        lambda c: c.sequence(c.text("module"), b"N", c.text("x.py"), c.text("source")),
        lambda c: c.sequence(
            c.text("storage"), c.name("torch", "float32"), c.text("0"), c.text("cpu"), b"K\3"
        ),
        lambda c: c.sequence(c.text("storage"), c.text("FloatStorage"), c.text("0"), c.text("cpu"), b"K\3"),
        lambda c: c.sequence(
            c.text("storage"), c.name("torch", "FloatStorage"), b"K\0", c.text("cpu"), b"K\3"
        ),
        lambda c: c.sequence(c.text("storage"), c.name("torch", "FloatStorage"), c.text("0"), c.text("cpu")),
    ],
)
def test_persistent_ids_of_another_shape(identity, craft, write, container):
    with pytest.raises(CheckpointError, match="does not describe a storage"):
        read_weights(write(container(identity(craft) + b"Q", {"0": bytes(12)})))


@pytest.mark.parametrize("size", [-1, 2**62, 2**500])
def test_impossible_storage_size(size, craft, write, container):
    with pytest.raises(CheckpointError, match="invalid size"):
        read_weights(write(container(craft.storage("0", size), {"0": bytes(12)})))


def test_bool_is_no_size(craft, write):
    kind = craft.name("torch", "FloatStorage")
    identity = craft.sequence(craft.text("storage"), kind, craft.text("0"), craft.text("cpu"), b"\x88")
    with pytest.raises(CheckpointError, match="invalid size"):
        read_weights(write(craft.zip_file(identity + b"Q", {"0": bytes(4)})))


@pytest.mark.parametrize("other", [("FloatStorage", 4), ("IntStorage", 3), ("DoubleStorage", 3)])
def test_contradicting_storages(other, craft, write, container):
    kind, size = other
    body = craft.listed(craft.storage("0", 3), craft.storage("0", size, kind))
    with pytest.raises(CheckpointError, match="two contradictory descriptions"):
        read_weights(write(container(body, {"0": bytes(12)})))


def test_only_these_globals_build_anything():
    calls = {key for key, value in ALLOWED.items() if value.call is not None}
    assert calls == {
        ("collections", "OrderedDict"),
        ("torch", "Size"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch._utils", "_rebuild_parameter_with_state"),
        ("torch._tensor", "_rebuild_from_type"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.nn.parameter", "Parameter"),
    }
    for module, name in ALLOWED.keys() - calls:
        assert module in ("torch", "torch.storage")
        assert ALLOWED[module, name].dtype is not None
        assert "." not in name


@pytest.mark.parametrize("pair", [("os", "system"), ("torch FloatStorage", ""), ("torch", "float3")])
def test_other_globals_are_inert(pair):
    found = resolve(*pair)
    assert (found.name, found.call, found.dtype, found.is_storage) == (".".join(pair), None, None, False)


@pytest.mark.parametrize("pair", [("torch", 1), (None, None)])
def test_names_are_texts(pair):
    with pytest.raises(CheckpointError, match="instead of the name of a global"):
        resolve(*pair)


def test_tensors_of_subclasses_are_read_without_their_attributes(craft, write):
    inner = [craft.storage("0", 2), craft.integer(0), craft.sizes((2,)), craft.sizes((1,)), b"\x89", b"N"]
    rebuild = craft.name("torch._utils", "_rebuild_tensor_v2")
    subclass = craft.name("fastai.torch_core", "TensorImage")
    function = craft.name("torch._tensor", "_rebuild_from_type_v2")
    body = craft.mapping({"w": craft.call(function, rebuild, subclass, craft.sequence(*inner), b"}")})
    raw = np.array([1, 2], np.float32).tobytes()
    assert read_weights(write(craft.zip_file(body, {"0": raw})))["w"].tolist() == [1, 2]
    nested = craft.call(function, function, subclass, craft.sequence(*inner), b"}")  # as deep as a file likes
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 2), (2,), (1,)), "x": nested})
    with pytest.raises(CheckpointError, match="tensor 'x' is built by"):
        read_weights(write(craft.zip_file(body, {"0": raw})))["x"]
