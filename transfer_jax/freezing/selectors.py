"""Which parameters train, said by names: `head`, `top(2)`, `from_("blocks.11")`, joined by `|`, `&` and `~`.

A selector picks paths (`backbone/blocks.3/expand/conv/kernel`) out of a model's parameters. It prints as the
expression that makes it, and `parse` reads that expression back.
"""

import ast
import re
from collections.abc import Callable, Iterable

from transfer_jax.models.flat_arrays import block_of


class SelectorError(ValueError):
    """A selector that cannot be read, or that matches nothing, or everything without saying so."""


class Selector(str):
    """A set of parameters, described: the text is the expression that makes it.

    Attributes:
        select: From the paths of all parameters, in the order of their blocks, to the chosen ones.
    """

    select: Callable[[tuple[str, ...]], frozenset[str]]

    def __new__(cls, text: str, select: Callable[[tuple[str, ...]], frozenset[str]]) -> "Selector":
        self = super().__new__(cls, text)
        self.select = select
        return self

    def __or__(self, other: "Selector") -> "Selector":
        return Selector(f"({self} | {other})", lambda paths: self.select(paths) | other.select(paths))

    def __and__(self, other: "Selector") -> "Selector":
        return Selector(f"({self} & {other})", lambda paths: self.select(paths) & other.select(paths))

    def __invert__(self) -> "Selector":
        def select(paths: tuple[str, ...]) -> frozenset[str]:
            without = self.select(paths)
            if not without:
                raise SelectorError(f"~{self} picks everything, for {self} picks nothing; all_() says so")
            return frozenset(paths) - without

        return Selector(f"~{self}", select)


def _blocks(paths: Iterable[str]) -> tuple[str, ...]:
    """The blocks that have parameters, in order, `head` last."""
    return tuple(dict.fromkeys(map(block_of, paths)))


def _of_blocks(text: str, choose: Callable[[tuple[str, ...]], Iterable[str]]) -> Selector:
    def select(paths: tuple[str, ...]) -> frozenset[str]:
        chosen = set(choose(_blocks(paths)))
        return frozenset(path for path in paths if block_of(path) in chosen)

    return Selector(text, select)


def _belongs(block: str, name: str) -> bool:
    """Whether a block is the one named, or one of the stage named."""
    return block == name or block.startswith(f"{name}.")


head = _of_blocks("head", lambda blocks: ["head"])
"""The new classifier."""


def all_() -> Selector:
    """Everything."""
    return _of_blocks("all_()", lambda blocks: blocks)


def top(count: int) -> Selector:
    """The last `count` blocks of the backbone that have parameters, and the head."""
    if not isinstance(count, int):
        raise SelectorError(f"top({count!r}): the number of blocks must be an integer")

    def choose(blocks: tuple[str, ...]) -> Iterable[str]:
        if not 0 <= count < len(blocks):
            raise SelectorError(f"top({count}): the backbone has {len(blocks) - 1} blocks with parameters")
        return blocks[len(blocks) - 1 - count :]

    return _of_blocks(f"top({count})", choose)


def from_(name: str) -> Selector:
    """The block or stage named, everything above it, and the head."""

    def choose(blocks: tuple[str, ...]) -> Iterable[str]:
        return blocks[first_block(blocks, name, f"from_({name!r})") :]

    return _of_blocks(f"from_({name!r})", choose)


def between(first: str, last: str) -> Selector:
    """The blocks from one to another, both or the stages of that name included; not the head."""
    text = f"between({first!r}, {last!r})"

    def choose(blocks: tuple[str, ...]) -> Iterable[str]:
        start, stop = first_block(blocks, first, text), first_block(blocks, last, text)
        if stop < start:
            raise SelectorError(f"{text}: {last} lies below {first}")
        return [
            block for index, block in enumerate(blocks) if start <= index <= stop or _belongs(block, last)
        ]

    return _of_blocks(text, choose)


def depth(low: float, high: float) -> Selector:
    """The blocks of the backbone in a range of depth, from 0 at the input to 1 at the top; not the head."""
    text = f"depth({low}, {high})"
    if not 0 <= low < high <= 1:
        raise SelectorError(f"{text}: the range must lie in 0..1, the lower end first")

    def choose(blocks: tuple[str, ...]) -> Iterable[str]:
        count = len(blocks) - 1
        return [block for index, block in enumerate(blocks[:-1]) if low <= (index + 0.5) / count < high]

    return _of_blocks(text, choose)


def blocks(*names: str) -> Selector:
    """Just the blocks or stages named."""
    text = f"blocks({', '.join(map(repr, names))})"

    def choose(present: tuple[str, ...]) -> Iterable[str]:
        for name in names:
            first_block(present, name, text)
        return [block for block in present if any(_belongs(block, name) for name in names)]

    return _of_blocks(text, choose)


def match(pattern: str) -> Selector:
    """The parameters whose path a regular expression finds a match in."""
    text = f"match({pattern!r})"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SelectorError(f"{text}: {error}") from None
    return Selector(text, lambda paths: _some(text, paths, [path for path in paths if compiled.search(path)]))


_ROLES = {
    "norm": r"/[^/]*norm[^/]*/[^/]*$",
    "bias": r"/bias$",
    "kernel": r"/kernel$",
    "attention": r"/attn(_pool)?/(?!fc|norm)",
    "mlp": r"/fc\d/",
    "embedding": r"/(patch_)?embed/",
}
"""By role, what finds its parameters: the modules of all networks are called alike."""


def role(name: str) -> Selector:
    """The parameters of one role.

    Args:
        name: `norm` (scale and bias of normalizations), `bias`, `kernel`, `attention`, `mlp` (the perceptrons
            between attentions or convolutions), or `embedding` (patches, tokens and positions).
    """
    if name not in _ROLES:
        raise SelectorError(f"unknown role {name!r}; the roles are {', '.join(_ROLES)}")
    text, compiled = f"role({name!r})", re.compile(_ROLES[name])
    return Selector(text, lambda paths: _some(text, paths, [path for path in paths if compiled.search(path)]))


def is_norm(path: str) -> bool:
    """Whether a parameter is a normalization's."""
    return re.search(_ROLES["norm"], path) is not None


_FUNCTIONS = {
    "all_": all_,
    "top": top,
    "from_": from_,
    "between": between,
    "depth": depth,
    "blocks": blocks,
    "match": match,
    "role": role,
}


def parse(text: str) -> Selector:
    """Reads a selector from its expression.

    Raises:
        SelectorError: If the text is no such expression; the choices are named.
    """

    def build(node: ast.AST) -> Selector:
        match node:
            case ast.Expression(body=body):
                return build(body)
            case ast.Name(id="head"):
                return head
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return build(left) | build(right)
            case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
                return build(left) & build(right)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return ~build(operand)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](*map(ast.literal_eval, arguments))
        raise SyntaxError

    try:
        return build(ast.parse(text.strip(), mode="eval"))
    except SelectorError:
        raise
    except (SyntaxError, TypeError, ValueError):
        choices = ", ".join(["head", *(f"{name}(…)" for name in _FUNCTIONS)])
        raise SelectorError(f"cannot read the selector {text!r}; use {choices}, joined by | & ~") from None


def first_block(present: tuple[str, ...], name: str, text: str) -> int:
    """Position of the first block that is, or belongs to, the one named.

    Raises:
        SelectorError: If there is none; says `text` and the choices.
    """
    for position, block in enumerate(present):
        if _belongs(block, name):
            return position
    raise SelectorError(f"{text} matches no block; the blocks are {', '.join(present)}")


def _some(text: str, paths: tuple[str, ...], chosen: list[str]) -> frozenset[str]:
    if not chosen:
        shown = ", ".join(paths[:3])
        raise SelectorError(f"{text} matches none of the {len(paths)} parameters, such as {shown}")
    if len(chosen) == len(paths):
        raise SelectorError(f"{text} matches all {len(paths)} parameters; say all_() if that is meant")
    return frozenset(chosen)
