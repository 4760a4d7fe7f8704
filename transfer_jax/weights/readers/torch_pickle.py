"""An interpreter of the pickles inside PyTorch checkpoints, which never unpickles.

The interpreter implements the binary opcodes of protocols 2 to 5. A global becomes an inert stand-in from
`allowed_globals`; nothing is imported. A call of a global that builds tensors runs one of the functions
there, which check their arguments. Any other call gives an `Inert` object, and nothing is executed. No
attribute of any object is ever read or set by name.
"""

import mmap
import struct
from collections.abc import Callable
from typing import Any, ClassVar

from transfer_jax.weights.readers.allowed_globals import (
    Global,
    LegacyParameter,
    Storage,
    TensorRef,
    as_key,
    as_tensor,
    build,
    resolve,
)
from transfer_jax.weights.readers.errors import CheckpointError
from transfer_jax.weights.readers.inert import Inert

_MAX_OPCODES = 2_000_000  # bounds time and memory; a checkpoint has a few dozen for each tensor
_INERT_STEPS = 3  # an inert object takes more memory than a literal
_MAX_LINE = 1_000  # the length of the module's or the object's name of a global, in bytes


class PickleReader:
    """A reader of consecutive pickles in `data`, from byte `pos`.

    Args:
        data: the bytes, or the mapped file.
        pos: the position of the first pickle in bytes; after each `load`, that of the next one.
        persistent: a function from a persistent id to an object; None if the pickle may contain no such ids.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        pos: int = 0,
        persistent: Callable[[object], object] | None = None,
    ):
        self.data = data
        self.pos = pos
        self.persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._budget = _MAX_OPCODES

    def load(self) -> Any:
        """Returns the next pickle's object: tuples, lists, dicts, literals, stand-ins and `Inert` objects.

        Raises:
            CheckpointError: if the pickle is truncated, malformed, too large or has an unsupported opcode.
        """
        self._stack, self._marks, self._memo = [], [], {}
        operations = self._OPERATIONS
        while True:
            start = self.pos
            opcode = self._take(1)[0]
            self._spend(1)
            if opcode == 0x2E:  # STOP
                if self._marks or len(self._stack) != 1:
                    raise CheckpointError(
                        f"damaged pickle: it ends with an unfinished object at byte {start}"
                    )
                return self._pop()
            operation = operations.get(opcode)
            if operation is None:
                raise CheckpointError(f"damaged pickle: unsupported opcode {opcode:#04x} at byte {start}")
            operation(self)

    # Input. Each read is checked against the length of the data.

    def _take(self, count: int) -> bytes:
        end = self.pos + count
        if end > len(self.data):
            raise CheckpointError(
                f"truncated: the pickle needs {count} bytes at byte {self.pos} of {len(self.data)}"
            )
        taken = self.data[self.pos : end]
        self.pos = end
        return taken

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> str:
        end = self.data.find(b"\n", self.pos, self.pos + _MAX_LINE)
        if end < 0:
            raise CheckpointError(f"damaged pickle: no name of a global at byte {self.pos}")
        line = self._take(end - self.pos + 1)
        return line[:-1].decode("latin-1")

    def _spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise CheckpointError(
                f"refused: the pickle has more than {_MAX_OPCODES} steps, too many for a checkpoint"
            )

    # The stack.

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise CheckpointError(f"damaged pickle: a value is missing before byte {self.pos}")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise CheckpointError(f"damaged pickle: a mark is missing before byte {self.pos}")
        mark = self._marks.pop()
        items = self._stack[mark:]
        del self._stack[mark:]
        return items

    def _top(self, kind: type) -> Any:
        value = self._pop()
        self._stack.append(value)
        if type(value) is not kind and not isinstance(value, Inert):
            raise CheckpointError(
                f"damaged pickle: items for a {type(value).__name__}, expected a {kind.__name__}"
            )
        return value

    # Literals and containers.

    def _literal(self, value: object) -> None:
        self._stack.append(value)

    def _sized(self, layout: str, decode: Callable[[bytes], object]) -> None:
        raw = self._take(self._number(layout))
        try:
            self._stack.append(decode(raw))
        except ValueError:
            raise CheckpointError(f"damaged pickle: invalid text before byte {self.pos}") from None

    def _proto(self) -> None:
        version = self._number("<B")
        if version > 5:
            raise CheckpointError(f"the pickle has protocol {version}; supported are protocols up to 5")

    def _tuple(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _append(self) -> None:
        self._extend([self._pop()])

    def _extend(self, items: list[Any]) -> None:
        target = self._top(list)
        if not isinstance(target, Inert):  # the items of unknown lists, sets and queues are dropped
            target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise CheckpointError(f"damaged pickle: a key without a value before byte {self.pos}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[as_key(key)] = value

    def _setitem(self) -> None:
        value, key = self._pop(), self._pop()
        self._update([key, value])

    def _dict(self) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._update(items)

    def _put(self, index: int) -> None:
        value = self._pop()
        self._stack.append(value)
        self._memo[index] = value

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise CheckpointError(f"damaged pickle: no object at memo index {index} before byte {self.pos}")
        self._stack.append(self._memo[index])

    # Opcodes that run code in an unpickler. Here, they only make objects.

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(resolve(module, name))

    def _call(self) -> None:
        args, function = self._pop(), self._pop()
        if not isinstance(args, tuple):
            raise CheckpointError(f"damaged pickle: a call on a {type(args).__name__}")
        self._push_result(function, args)

    def _push_result(self, function: Any, args: tuple[Any, ...]) -> None:
        if not isinstance(function, Global | Inert):
            raise CheckpointError(f"damaged pickle: it calls a {type(function).__name__}")
        if args and isinstance(args[0], list | tuple | dict):
            self._spend(len(args[0]))
        self._spend(_INERT_STEPS)
        call = function.call if isinstance(function, Global) else None
        self._stack.append(build(function.name, args) if call is None else call(args))

    def _newobj_ex(self) -> None:
        _, args, function = self._pop(), self._pop(), self._pop()
        self._stack += [function, args]
        self._call()

    def _obj(self) -> None:
        function, *args = self._pop_to_mark() or [None]
        self._push_result(function, tuple(args))

    def _inst(self) -> None:
        function = resolve(self._line(), self._line())
        self._push_result(function, tuple(self._pop_to_mark()))

    def _frozenset(self) -> None:
        self._pop_to_mark()
        self._set("frozenset")

    def _set(self, name: str) -> None:
        self._spend(_INERT_STEPS)
        self._stack.append(Inert(name))

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        self._stack.append(target)
        if isinstance(target, Inert):
            for part in state if isinstance(state, tuple) else (state,):
                self._spend(len(part) if isinstance(part, dict) else 0)
            target.set_state(state)
            target.of_tensors = target.of_tensors or build("", (state,)).of_tensors
        elif isinstance(target, LegacyParameter):
            target.tensor = as_tensor(state[0]) if isinstance(state, tuple) and state else None
            if target.tensor is None:
                raise CheckpointError("damaged pickle: the state of a parameter has no tensor")
        elif isinstance(target, Global | Storage | TensorRef):
            raise CheckpointError(f"refused: the pickle sets the state of a {type(target).__name__}")
        # Attributes of dictionaries and lists, in practice `_metadata` of a state dict, are dropped.

    def _persistent(self) -> None:
        identity = self._pop()
        if self.persistent is None:
            raise CheckpointError("damaged pickle: a reference to a storage outside the checkpoint's object")
        self._stack.append(self.persistent(identity))

    _OPERATIONS: ClassVar[dict[int, Callable[["PickleReader"], None]]] = {
        0x80: _proto,
        0x95: lambda self: self._number("<Q"),  # FRAME: only a hint
        ord("("): lambda self: self._marks.append(len(self._stack)),
        ord("N"): lambda self: self._literal(None),
        0x88: lambda self: self._literal(True),
        0x89: lambda self: self._literal(False),
        ord("K"): lambda self: self._literal(self._number("<B")),
        ord("M"): lambda self: self._literal(self._number("<H")),
        ord("J"): lambda self: self._literal(self._number("<i")),
        ord("G"): lambda self: self._literal(self._number(">d")),
        0x8A: lambda self: self._sized("<B", lambda raw: int.from_bytes(raw, "little", signed=True)),
        ord("X"): lambda self: self._sized("<I", _text),
        0x8C: lambda self: self._sized("<B", _text),
        0x8D: lambda self: self._sized("<Q", _text),
        ord("T"): lambda self: self._sized("<I", _python2_text),
        ord("U"): lambda self: self._sized("<B", _python2_text),
        ord("B"): lambda self: self._sized("<I", bytes),
        ord("C"): lambda self: self._sized("<B", bytes),
        0x8E: lambda self: self._sized("<Q", bytes),
        0x96: lambda self: self._sized("<Q", bytes),
        ord(")"): lambda self: self._tuple(0),
        0x85: lambda self: self._tuple(1),
        0x86: lambda self: self._tuple(2),
        0x87: lambda self: self._tuple(3),
        ord("t"): lambda self: self._literal(tuple(self._pop_to_mark())),
        ord("]"): lambda self: self._literal([]),
        ord("l"): lambda self: self._literal(self._pop_to_mark()),
        ord("a"): _append,
        ord("e"): lambda self: self._extend(self._pop_to_mark()),
        0x8F: lambda self: self._set("set"),
        0x90: lambda self: self._extend(self._pop_to_mark()),
        0x91: _frozenset,
        ord("}"): lambda self: self._literal({}),
        ord("d"): _dict,
        ord("s"): _setitem,
        ord("u"): lambda self: self._update(self._pop_to_mark()),
        ord("q"): lambda self: self._put(self._number("<B")),
        ord("r"): lambda self: self._put(self._number("<I")),
        0x94: lambda self: self._put(len(self._memo)),
        ord("h"): lambda self: self._get(self._number("<B")),
        ord("j"): lambda self: self._get(self._number("<I")),
        ord("c"): lambda self: self._literal(resolve(self._line(), self._line())),
        0x93: _stack_global,
        ord("R"): _call,
        0x81: _call,  # NEWOBJ
        ord("b"): _build,
        ord("Q"): _persistent,
        ord("i"): _inst,
        ord("o"): _obj,
        0x92: _newobj_ex,
        0x82: lambda self: self._literal(Global(f"extension {self._number('<B')}")),
        0x83: lambda self: self._literal(Global(f"extension {self._number('<H')}")),
        0x84: lambda self: self._literal(Global(f"extension {self._number('<i')}")),
    }


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _python2_text(raw: bytes) -> str:
    return raw.decode("latin-1")
