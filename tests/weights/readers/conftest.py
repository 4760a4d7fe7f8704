"""Writes PyTorch checkpoints by hand, opcode by opcode, so that the tests need no PyTorch and can lie."""

import io
import struct
import zipfile
from types import SimpleNamespace

import pytest


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def sequence(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def listed(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def mapping(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *args: bytes) -> bytes:
    return function + sequence(*args) + b"R"


def ordered(items: dict[str, bytes]) -> bytes:
    filled = b"(" + b"".join(text(key) + value for key, value in items.items()) + b"u"
    return call(name("collections", "OrderedDict")) + filled


def storage(key: str, numel: int, kind: str = "FloatStorage", view: bytes = b"") -> bytes:
    module = "torch.storage" if kind == "UntypedStorage" else "torch"
    return sequence(text("storage"), name(module, kind), text(key), text("cpu"), integer(numel), view) + b"Q"


def sizes(values: tuple[int, ...]) -> bytes:
    return sequence(*map(integer, values))


def tensor(stored: bytes, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    hooks = call(name("collections", "OrderedDict"))
    function = name("torch._utils", "_rebuild_tensor_v2")
    return call(function, stored, integer(offset), sizes(shape), sizes(stride), b"\x89", hooks)


def pickled(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def zip_file(
    body: bytes, storages: dict[str, bytes], order: bytes | None = b"little", protocol: int = 2
) -> bytes:
    members = {"archive/data.pkl": pickled(body, protocol)}
    if order is not None:
        members["archive/byteorder"] = order
    members |= {f"archive/data/{key}": raw for key, raw in storages.items()}
    return zip_members(members)


def zip_members(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for member, raw in members.items():
            archive.writestr(member, raw)
    return file.getvalue()


HEADER = pickled(integer(0x1950A86A20F9469CFC6C)) + pickled(integer(1001)) + pickled(b"}")


def legacy_file(body: bytes, storages: dict[str, bytes], itemsize: int = 4) -> bytes:
    keys = pickled(listed(*map(text, storages)))
    counted = (struct.pack("<q", len(raw) // itemsize) + raw for raw in storages.values())
    return HEADER + pickled(body) + keys + b"".join(counted)


@pytest.fixture(scope="session")
def craft() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(
        **{key: value for key, value in globals().items() if callable(value)}, HEADER=HEADER
    )


@pytest.fixture(params=["zip", "legacy"])
def container(request, craft):
    """Either of the two functions that make a checkpoint of an object's opcodes and its storages."""
    return craft.zip_file if request.param == "zip" else craft.legacy_file


@pytest.fixture
def write(tmp_path):
    """Writes bytes to a file and returns its path."""

    def write(raw: bytes, name: str = "weights.pth"):
        path = tmp_path / name
        path.write_bytes(raw)
        return path

    return write
