import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import os
import pathlib
import pickle
import struct
import tracemalloc
import uuid

import numpy as np
import pytest

from transfer_jax.weights.readers import CheckpointError, read_weights
from transfer_jax.weights.readers.allowed_globals import Global
from transfer_jax.weights.readers.inert import Inert
from transfer_jax.weights.readers.torch_pickle import PickleReader

SHORT = b"\x8c"

# Opcodes that run a shell command in an ordinary unpickler.
ATTACKS = {
    "reduce": (lambda c, cmd: c.call(c.name("os", "system"), c.text(cmd))),
    "posix": (lambda c, cmd: c.call(c.name("posix", "system"), c.text(cmd))),
    "eval": (lambda c, cmd: c.call(c.name("builtins", "eval"), c.text(f"__import__('os').system({cmd!r})"))),
    "python2 eval": (
        lambda c, cmd: c.call(c.name("__builtin__", "eval"), c.text(f"__import__('os').system({cmd!r})"))
    ),
    "getattr": (
        lambda c, cmd: c.call(
            c.call(
                c.name("builtins", "getattr"),
                c.call(c.name("builtins", "__import__"), c.text("os")),
                c.text("system"),
            ),
            c.text(cmd),
        )
    ),
    "inside an allowed call": (
        lambda c, cmd: c.call(
            c.name("collections", "OrderedDict"),
            c.listed(c.sequence(c.text("w"), c.call(c.name("os", "system"), c.text(cmd)))),
        )
    ),
    "stack global": (
        lambda c, cmd: SHORT + b"\x02os" + SHORT + b"\x06system\x93" + c.sequence(c.text(cmd)) + b"R"
    ),
    "dotted stack global": (
        lambda c, cmd: c.text("shutil") + c.text("os.system") + b"\x93" + c.sequence(c.text(cmd)) + b"R"
    ),
    "memoized": (
        lambda c, cmd: c.listed(c.name("os", "system") + b"q\0", b"h\0" + c.sequence(c.text(cmd)) + b"R")
    ),
    "inst": (lambda c, cmd: b"(" + c.text(cmd) + b"ios\nsystem\n"),
    "obj": (
        lambda c, cmd: (
            b"(" + c.name("subprocess", "Popen") + c.sequence(c.text("sh"), c.text("-c"), c.text(cmd)) + b"o"
        )
    ),
    "build": (
        lambda c, cmd: (
            c.name("doctest", "_TestClass")
            + b")\x81"
            + c.mapping({"x": c.call(c.name("os", "system"), c.text(cmd))})
            + b"b"
        )
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_work_on_an_unpickler_and_not_here(attack, craft, write, tmp_path):
    marker = tmp_path / "executed"
    body = ATTACKS[attack](craft, f"touch {marker}")

    result = pickle.loads(craft.pickled(body, 2 if "python2" in attack else 4))
    if hasattr(result, "wait"):
        result.wait()
    assert marker.exists(), "the attack is no attack"
    marker.unlink()

    hidden = craft.mapping({"w": craft.tensor(craft.storage("0", 1), (1,), (1,)), "state": body})
    for raw in (
        craft.zip_file(hidden, {"0": bytes(4)}, protocol=4),
        craft.legacy_file(hidden, {"0": bytes(4)}),
    ):
        assert list(read_weights(write(raw))) == ["w"]
    for raw in (craft.pickled(body, 4), craft.HEADER + craft.pickled(b"}") + craft.pickled(body, 4)):
        with pytest.raises(CheckpointError):
            read_weights(write(raw))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.hub", "load"),
        ("torch", "load"),
        ("torch", "hub.load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "_rebuild_tensor_v2.__class__"),
        ("torch._utils._rebuild_tensor_v2", "__globals__"),
        ("torch._utils", "_import_dotted_name"),
        ("torch", "FloatStorage.from_file"),
        ("torch", "_utils"),
        ("torch", "__builtins__"),
        ("torch", ""),
        ("", "torch.FloatStorage"),
        ("Torch", "FloatStorage"),
        ("torch ", "FloatStorage"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "_sys.modules"),
        ("collections", "namedtuple"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("transfer_jax.weights.readers.allowed_globals", "resolve"),
    ],
)
def test_look_alike_globals_are_inert(module, name, craft, write, container):
    good = craft.tensor(craft.storage("0", 1), (1,), (1,))
    for opcodes in (craft.name(module, name), craft.text(module) + craft.text(name) + b"\x93"):
        built = PickleReader(craft.pickled(craft.call(opcodes, craft.text("x")))).load()
        assert (type(built), built.name, dict(built)) == (Inert, f"{module}.{name}", {})
        body = craft.mapping({"w": good, "x": craft.call(opcodes, craft.text("x"))})
        assert list(read_weights(write(container(body, {"0": bytes(4)})))) == ["w"]


def test_a_tensor_of_an_unknown_function_is_an_error_only_if_it_is_read(craft, write):
    """The message is one printable line, whatever the name of the function."""
    stored = craft.storage("0", 1)
    function = craft.text("o\ns") + craft.text("sy\x1b[31m\nstem" + "x" * 10_000) + b"\x93"
    body = craft.mapping({"w": craft.tensor(stored, (1,), (1,)), "q": craft.call(function, stored)})
    weights = read_weights(write(craft.zip_file(body, {"0": bytes(4)})))
    assert list(weights) == ["w", "q"]
    assert weights["w"].tolist() == [0]
    with pytest.raises(CheckpointError, match=r"tensor 'q' is built by o\\ns\.sy.*not supported") as caught:
        weights["q"]
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (lambda c: c.call(c.text("os.system")), "calls a str"),
        (lambda c: c.call(b"}"), "calls a dict"),
        (lambda c: c.call(c.tensor(c.storage("0", 1), (), ())), "calls a TensorRef"),
        (lambda c: c.name("torch", "float32") + c.mapping({"call": b"N"}) + b"b", "state of a Global"),
        (
            lambda c: c.tensor(c.storage("0", 1), (), ()) + c.mapping({"shape": b"N"}) + b"b",
            "state of a TensorRef",
        ),
        (lambda c: c.storage("0", 1) + c.mapping({"nbytes": b"N"}) + b"b", "state of a Storage"),
        (lambda c: c.name("torch.nn.parameter", "Parameter") + b")\x81}b", "state of a parameter has no"),
        (lambda c: b"(itorch\nSize\n", "has 0 arguments, expected 1"),
        (lambda c: b"(o", "calls a NoneType"),
        (lambda c: b"NN\x93", "a NoneType and a NoneType instead of the name"),
    ],
)
def test_calls_and_states_are_refused(body, message, craft, write):
    with pytest.raises(CheckpointError, match=message):
        read_weights(write(craft.zip_file(body(craft), {"0": bytes(4)})))


@dataclasses.dataclass
class Settings:
    lr: float
    names: list[str]


class Kind(enum.Enum):
    SMALL = 1


class AttributeDict(dict):
    pass


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
        pathlib.PureWindowsPath("C:/x"),
        np.float64(0.5),
        np.array(["a"], object),
        np.arange(3),
        np.dtype("int8"),
        np.random.default_rng(0),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
        datetime.timedelta(1),
        uuid.UUID(int=5),
        decimal.Decimal("0.1"),
        fractions.Fraction(1, 3),
        functools.partial(int, base=2),
        collections.deque([1, 2], maxlen=3),
        {1, 2},
        frozenset({"x"}),
        bytearray(b"ab"),
        1 + 2j,
        Settings(0.1, ["a"]),
        Kind.SMALL,
        {Kind.SMALL: 1, (1, 2): 3, 0.5: 4},
        range(3),
        slice(1, 2),
        os.path.join,
    ],
    ids=lambda value: type(value).__name__,
)
def test_settings_are_inert_and_do_not_hide_what_follows(value, protocol):
    raw = pickle.dumps({"value": [value, value], "after": "x"}, protocol)
    found = PickleReader(raw).load()
    assert found["after"] == "x"
    first, second = found["value"]
    assert first is second
    assert isinstance(first, Inert | dict | Global | bytes)


@pytest.mark.parametrize("protocol", [2, 4])
def test_dictionaries_of_unknown_classes_keep_their_items(protocol):
    made = [collections.defaultdict(list, a=1), collections.Counter(a=1), AttributeDict(a=1)]
    made[2].note = "x"
    for found in PickleReader(pickle.dumps(made, protocol)).load():
        assert dict(found) == {"a": 1}


def test_keys_of_unusual_types_equal_no_other_key():
    found = PickleReader(pickle.dumps({(1, 2): "a", 0.5: "b", 2**61: "c", "x": "d"}, 4)).load()
    assert list(found.values()) == ["a", "b", "c", "d"]
    assert [key for key in found if type(key) is not object] == ["x"]


def test_attributes_of_an_ordered_dict_do_nothing(craft, write):
    """`state_dict()` carries its `_metadata` this way; other names are dropped just the same."""
    entry = {"w": craft.tensor(craft.storage("0", 1), (1,), (1,))}
    attributes = {"_metadata": b"}", "__class__": b"N", "items": b"N", "__reduce__": b"N"}
    body = craft.ordered(entry) + craft.mapping(attributes) + b"b"
    assert list(read_weights(write(craft.zip_file(body, {"0": bytes(4)})))) == ["w"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "ends with an unfinished object"),
        (b"NN", "ends with an unfinished object"),
        (b"(N", "ends with an unfinished object"),
        (b"a", "a value is missing"),
        (b"(a", "a value is missing"),
        (b"N(R", "a value is missing"),
        (b"NN(R", "a value is missing"),
        (b"(q\0", "a value is missing"),
        (b"t", "a mark is missing"),
        (b"Na", "a value is missing"),
        (b"NNa", "items for a NoneType, expected a list"),
        (b"N(NNu", "items for a NoneType, expected a dict"),
        (b"N(Ne", "items for a NoneType, expected a list"),
        (b"}(Nu", "a key without a value"),
        (b"(Nd", "a key without a value"),
        (b"}]Ns", "a list as a dictionary key"),
        (b"}}Ns", "a dict as a dictionary key"),
        (b"h\0", "no object at memo index 0"),
        (b"j\xff\xff\xff\xff", "no object at memo index 4294967295"),
        (b"X\x01\0\0\0\xff", "invalid text"),
        (b"X\xff\xff\xff\xffabc", "needs 4294967295 bytes"),
        (b"T\xff\xff\xff\xffabc", "needs 4294967295 bytes"),
        (b"B\xff\xff\xff\x7fabc", "needs 2147483647 bytes"),
        (b"\x8d" + b"\xff" * 8, "needs 18446744073709551615 bytes"),
        (b"\x8e" + b"\xff" * 7 + b"\x7f", "needs 9223372036854775807 bytes"),
        (b"ctorch", "no name of a global"),
        (b"c" + b"x" * 2000 + b"\nx\n", "no name of a global"),
        (b"ctorch\nSize\nNR", "a call on a NoneType"),
        (b"\x80\x06N", "protocol 6"),
        (b"I1\n", "unsupported opcode 0x49"),
        (b"\xff", "unsupported opcode 0xff"),
        (b"\x8b" + b"\xff" * 4, "unsupported opcode 0x8b"),
        (b"Pa\n", "unsupported opcode 0x50"),
    ],
)
def test_damaged_pickles(body, message, craft, write, container):
    with pytest.raises(CheckpointError, match=rf"weights\.pth: .*{message}"):
        read_weights(write(container(body, {})))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_objects_are_read_as_an_unpickler_does(protocol):
    tree = {
        "int": [0, 255, 256, 65535, 65536, -1, 2**31, -(2**40), 2**64],
        "float": 1.5,
        "text": ["", "é", "x" * 300, "\ud800", "line\n"],
        "none": None,
        "bool": (True, False),
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "nested": {"a": {"b": [{}, [], {1: 2}]}, None: 1, True: 2},
        "many": list(range(3000)),
        "dict": {str(i): i for i in range(1500)},
    }
    if protocol > 2:
        tree["bytes"] = [b"", b"abc", b"x" * 300]
    tree["again"] = tree["nested"]
    raw = pickle.dumps(tree, protocol)
    reader = PickleReader(raw + b"rest")
    loaded = reader.load()
    assert loaded == tree
    assert loaded["again"] is loaded["nested"]
    assert reader.pos == len(raw)


def test_recursive_list():
    tree = []
    tree.append(tree)
    loaded = PickleReader(pickle.dumps(tree, 2)).load()
    assert loaded[0] is loaded


def test_deep_nesting(craft, write, container):
    for body in (b"(" * 50_000, b")" + b"\x85" * 100_000, b"]" * 50_000 + b"a" * 49_999):
        with pytest.raises(CheckpointError):
            read_weights(write(container(body, {})))


def peak(read) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memo_indices_take_no_memory(craft):
    """An unpickler makes room for every index up to the largest."""
    raw = craft.pickled(b"N" + b"".join(b"r" + struct.pack("<I", 2**32 - 1 - i) for i in range(100)))
    assert peak(lambda: PickleReader(raw).load()) < 100_000


def test_doubling_takes_no_time(craft, write):
    """Sixty tuples, each twice the one before: harmless unless something walks, compares or prints them."""
    doubled = b")q\0" + b"".join(b"h\0\x86q\0" for _ in range(60))
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 1), (1,), (1,)), "bomb": doubled})
    assert list(read_weights(write(craft.zip_file(body, {"0": bytes(4)})))) == ["w"]
    for use in (doubled + b"Q", doubled + b"R", b"N" + doubled + b"b", doubled, b"}" + doubled + b"Ns"):
        with pytest.raises(CheckpointError):
            read_weights(write(craft.zip_file(use, {})))


def test_number_of_steps_is_bounded(monkeypatch):
    monkeypatch.setattr("transfer_jax.weights.readers.torch_pickle._MAX_OPCODES", 1000)
    with pytest.raises(CheckpointError, match="more than 1000 steps"):
        PickleReader(b"]" * 1001).load()
    pairs = b"](" + b"(X\1\0\0\0aNt" * 100 + b"eq\0"  # 406 steps, then calls that copy a hundred pairs each
    copies = (b"ccollections\nOrderedDict\nh\0\x85R") * 10
    with pytest.raises(CheckpointError, match="more than 1000 steps"):
        PickleReader(pairs + copies).load()
