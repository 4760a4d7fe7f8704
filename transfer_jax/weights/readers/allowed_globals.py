"""The globals that build the tensors of a PyTorch checkpoint, and the stand-ins that replace them.

PyTorch is not imported, and nothing that the file names is looked up or called. A stand-in of a global in
`ALLOWED` is data (a dtype) or a function of this module that checks its arguments. A call of any other global
gives an `Inert` object.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.inert import Inert

_MAX_INT = 2**62
_MAX_DIMENSIONS = 32

DTYPES: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(name) for name in ("float64", "float32", "float16", "bool", "complex64", "complex128")},
    **{name: np.dtype(name) for name in ("int64", "int32", "int16", "int8")},
    **{name: np.dtype(name) for name in ("uint64", "uint32", "uint16", "uint8")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
}

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """A global: a dtype, a storage type with its dtype, a callable, or an unknown one.

    Attributes:
        name: The dotted name of the global.
        dtype: The dtype, or that of the storage type; None for others.
        call: The stand-in, called with a tuple of arguments; None for a dtype and for an unknown global.
        is_storage: Whether the global is a storage type.
    """

    name: str
    dtype: np.dtype[Any] | None = None
    call: Callable[[tuple[Any, ...]], object] | None = None
    is_storage: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A range of bytes: `nbytes` bytes from byte `start` of the file's storage `key`."""

    key: str
    dtype: np.dtype[Any]
    start: int
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor that is not read yet, inside the storage `key`; `start` and `strides` are in bytes."""

    key: str
    dtype: np.dtype[Any]
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclasses.dataclass(slots=True)
class LegacyParameter:
    """A `torch.nn.Parameter` as PyTorch before 0.4 pickled it: created empty; its tensor follows."""

    tensor: TensorRef | None = None


def as_tensor(value: object) -> TensorRef | None:
    """Returns the tensor that `value` is or wraps, or None."""
    if isinstance(value, LegacyParameter):
        return value.tensor
    return value if isinstance(value, TensorRef) else None


def is_count(value: object) -> bool:
    """Returns whether `value` is an int (not a bool) that can be a size, an offset or a stride."""
    return type(value) is int and 0 <= value < _MAX_INT


def as_key(key: object) -> object:
    """Returns a key that is safe in a dictionary: text, bytes, None and small integers are unchanged.

    Others, such as tuples, floats and enums, become objects that equal no other key: their hashes could take
    long, or be chosen to collide.

    Raises:
        CheckpointError: if the key is a list or a dictionary, which are not keys in Python.
    """
    if key is None or isinstance(key, str | bytes) or (isinstance(key, int) and abs(key) < 2**60):
        return key
    if type(key) in (list, dict):
        raise CheckpointError(f"damaged: the pickle uses a {type(key).__name__} as a dictionary key")
    return object()


def build(name: str, args: tuple[Any, ...]) -> Inert:
    """Returns the result of calling an unknown global, which does nothing.

    The items of a single dictionary are kept, as in `Counter({…})`.
    """
    built = Inert(name, of_tensors=any(map(_is_of_tensors, args)))
    if len(args) == 1 and isinstance(args[0], dict):
        built.update(args[0])
    return built


def _is_of_tensors(value: object) -> bool:
    parts = value[:8] if isinstance(value, tuple) else (value,)
    return any(
        isinstance(part, Storage)
        or as_tensor(part) is not None
        or (isinstance(part, Inert) and part.of_tensors)
        for part in parts
    )


def _tensor(storage: object, offset: object, size: object, stride: object, dtype: object = None) -> TensorRef:
    if not isinstance(storage, Storage):
        raise CheckpointError(f"damaged: a tensor is built on a {type(storage).__name__}, expected a storage")
    if isinstance(dtype, Global) and dtype.dtype is not None and not dtype.is_storage:
        kind = dtype.dtype
    elif dtype is None:
        kind = storage.dtype
    else:
        raise CheckpointError(f"damaged: the dtype of a tensor is a {type(dtype).__name__}")
    if not (isinstance(size, tuple | list) and isinstance(stride, tuple | list) and len(size) == len(stride)):
        raise CheckpointError("damaged: a tensor's size and stride are not two tuples of the same length")
    if len(size) > _MAX_DIMENSIONS:
        raise CheckpointError(f"a tensor has {len(size)} dimensions, more than the {_MAX_DIMENSIONS} allowed")
    if not all(map(is_count, (offset, *size, *stride))):
        raise CheckpointError(
            "damaged: a tensor's offset, size or stride is not a non-negative integer below 2^62"
        )
    start: Any = offset
    shape = tuple(size)
    # PyTorch allows any stride for a dimension of length one.
    strides = tuple(step if length > 1 else 0 for length, step in zip(shape, stride, strict=True))
    end = start + 1 + sum((length - 1) * step for length, step in zip(shape, strides, strict=True))
    if 0 not in shape and end * kind.itemsize > storage.nbytes:
        raise CheckpointError(
            f"damaged: a tensor of shape {shape} ends at byte {end * kind.itemsize} of storage "
            f"{storage.key!r}, which has {storage.nbytes} bytes"
        )
    return TensorRef(
        key=storage.key,
        dtype=kind,
        start=storage.start + start * kind.itemsize,
        shape=shape,
        strides=tuple(step * kind.itemsize for step in strides),
    )


def _check_arity(args: tuple[Any, ...], low: int, high: int) -> tuple[Any, ...]:
    if not low <= len(args) <= high:
        raise CheckpointError(
            f"damaged: a call in the pickle has {len(args)} arguments, expected {low} to {high}"
        )
    return args


def _rebuild_tensor(args: tuple[Any, ...]) -> TensorRef:
    return _tensor(*_check_arity(args, 4, 4))


def _rebuild_tensor_v2(args: tuple[Any, ...]) -> TensorRef:
    storage, offset, size, stride, *rest = _check_arity(args, 6, 7)
    if rest[2:] and rest[2]:
        raise CheckpointError(
            "a tensor is stored conjugated or negated, which is not supported; "
            "call resolve_conj() and resolve_neg() in PyTorch and save again"
        )
    return _tensor(storage, offset, size, stride)


def _rebuild_tensor_v3(args: tuple[Any, ...]) -> TensorRef | Inert:
    storage, offset, size, stride, _, _, dtype, *rest = _check_arity(args, 7, 8)
    if rest and rest[0]:
        raise CheckpointError(
            "a tensor is stored conjugated or negated, which is not supported; "
            "call resolve_conj() and resolve_neg() in PyTorch and save again"
        )
    if dtype is None:
        raise CheckpointError("damaged: a tensor on an untyped storage has no dtype")
    if isinstance(dtype, Global) and dtype.dtype is None:
        return Inert(dtype.name, of_tensors=True)
    return _tensor(storage, offset, size, stride, dtype)


def _rebuild_parameter(args: tuple[Any, ...]) -> TensorRef | Inert:
    tensor = as_tensor(_check_arity(args, 3, 4)[0])
    if isinstance(args[0], Inert):
        return args[0]
    if tensor is None:
        raise CheckpointError(
            f"damaged: a parameter is built on a {type(args[0]).__name__}, expected a tensor"
        )
    return tensor


def _rebuild_from_type(args: tuple[Any, ...]) -> object:
    """Returns the tensor of a subclass of `torch.Tensor`, or of a tensor with attributes, without them."""
    function, _, inner, *_ = _check_arity(args, 4, 4)
    call = function.call if isinstance(function, Global) else None
    if call is not None and call in _REBUILD and isinstance(inner, tuple):
        return call(inner)
    return build("torch._tensor._rebuild_from_type_v2", (inner,))


_REBUILD = (_rebuild_tensor, _rebuild_tensor_v2, _rebuild_tensor_v3, _rebuild_parameter)


def _legacy_parameter(args: tuple[Any, ...]) -> LegacyParameter:
    _check_arity(args, 0, 0)
    return LegacyParameter()


def _size(args: tuple[Any, ...]) -> tuple[Any, ...]:
    (size,) = _check_arity(args, 1, 1)
    if not (isinstance(size, tuple | list) and len(size) <= _MAX_DIMENSIONS):
        raise CheckpointError("damaged: the argument of torch.Size is not a size")
    return tuple(size)


def _ordered_dict(args: tuple[Any, ...]) -> dict[Any, Any]:
    pairs = _check_arity(args, 0, 1)[0] if args else []  # Python 2 passes the items
    if not (isinstance(pairs, list) and all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs)):
        raise CheckpointError("damaged: the argument of OrderedDict is not a list of pairs")
    return {as_key(key): value for key, value in pairs}


def _allowed() -> dict[tuple[str, str], Global]:
    calls = {
        ("collections", "OrderedDict"): _ordered_dict,
        ("torch", "Size"): _size,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
        ("torch._tensor", "_rebuild_from_type"): _rebuild_from_type,
        ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
        ("torch.nn.parameter", "Parameter"): _legacy_parameter,
    }
    table = {key: Global(".".join(key), call=call) for key, call in calls.items()}
    for name, dtype in DTYPES.items():
        table["torch", name] = Global(f"torch.{name}", dtype=dtype)
    for name, dtype in _STORAGES.items():
        table["torch", name] = Global(f"torch.{name}", dtype=DTYPES[dtype], is_storage=True)
    table["torch.storage", "UntypedStorage"] = Global(
        "torch.storage.UntypedStorage", dtype=DTYPES["uint8"], is_storage=True
    )
    return table


ALLOWED = _allowed()


def resolve(module: object, name: object) -> Global:
    """Returns the stand-in of the global `module.name`; nothing is looked up.

    Raises:
        CheckpointError: if the module or the name is not a text.
    """
    if not (isinstance(module, str) and isinstance(name, str)):
        kinds = f"a {type(module).__name__} and a {type(name).__name__}"
        raise CheckpointError(f"damaged: the pickle has {kinds} instead of the name of a global")
    return ALLOWED.get((module, name)) or Global(ascii(f"{module}.{name}"[:200])[1:-1])
