"""Selectors of trainable parameters: `head`, `top(2)`, `from_("blocks.11")`, joined by `|`, `&` and `~`.

A selector picks paths such as `backbone/blocks.3/expand/conv/kernel` from a model's parameters. It prints as
the expression that makes it, and `parse` reads that expression.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterable, Mapping

from transfer_jax.counted import counted
from transfer_jax.fields import as_tuple


class SelectorError(ValueError):
    """A selector that is invalid, matches nothing, or matches everything unintentionally."""


class Selector(str):
    """A description of a set of parameters; the string is the expression that makes it.

    Selectors are joined by `|` (either), `&` (both) and `~` (not). The functions of this module make them;
    `parse` makes them from text.

    Example:
        >>> selector = from_("blocks.6") & ~role("norm") | head
        >>> parse(str(selector)) == selector
        True

    Attributes:
        select: Function from the block of each parameter by path, in the order of the blocks, to the selected
            paths. It raises `SelectorError` if the selector does not fit the parameters.
    """

    select: Callable[[Mapping[str, str]], frozenset[str]]

    def __new__(cls, text: str, select: Callable[[Mapping[str, str]], frozenset[str]]) -> "Selector":
        self = super().__new__(cls, text)
        self.select = select
        return self

    def __or__(self, other: "Selector") -> "Selector":
        return Selector(f"({self} | {other})", lambda groups: self.select(groups) | other.select(groups))

    def __and__(self, other: "Selector") -> "Selector":
        return Selector(f"({self} & {other})", lambda groups: self.select(groups) & other.select(groups))

    def __invert__(self) -> "Selector":
        def select(groups: Mapping[str, str]) -> frozenset[str]:
            excluded = self.select(groups)
            if not excluded:
                raise SelectorError(
                    f"~{self} selects everything, because {self} selects nothing; use all_() instead"
                )
            return frozenset(groups) - excluded

        return Selector(f"~{self}", select)


def _of_blocks(
    text: str, choose: Callable[[tuple[str, ...]], Iterable[str]], *, by_position: bool = True
) -> Selector:
    """Returns a selector of whole blocks.

    Args:
        text: The expression of the selector.
        choose: Function from the names of the blocks with parameters, in order, the head last.
        by_position: Whether the choice depends on the order of the blocks.
    """

    def select(groups: Mapping[str, str]) -> frozenset[str]:
        if by_position and not getattr(groups, "ordered", True):
            raise SelectorError(
                f"{text} needs the order of the blocks; give their names in order, or `blocks_by_depth(…)`, "
                "as `blocks`"
            )
        chosen = set(choose(tuple(dict.fromkeys(groups.values()))))
        return frozenset(path for path, block in groups.items() if block in chosen)

    return Selector(text, select)


def _is_in(block: str, name: str) -> bool:
    """Returns True if a block has the name, or is part of the stage of that name."""
    return block == name or block.startswith((f"{name}.", f"{name}/"))


def _select_head(groups: Mapping[str, str]) -> frozenset[str]:
    names = tuple(dict.fromkeys(groups.values()))
    if "head" not in names and not getattr(groups, "ordered", True):
        raise SelectorError(
            "head needs a block of that name, or the order of the blocks; its blocks are the last"
        )
    chosen = "head" if "head" in names else names[-1]
    return frozenset(path for path, block in groups.items() if block == chosen)


head = Selector("head", _select_head)
"""Selector of the head: the block of that name, or, in a model without one, the last block."""


def all_() -> Selector:
    """Selects all parameters."""
    return _of_blocks("all_()", lambda blocks: blocks, by_position=False)


def top(count: int) -> Selector:
    """Selects the last `count` blocks of the backbone that have parameters, and the head.

    Args:
        count: Number of blocks, from 0 (the head only) to all of them.

    Raises:
        SelectorError: If `count` is no integer; while selecting, if the backbone has fewer blocks.
    """
    try:
        count = operator.index(count)  # NumPy's integers, too.
    except TypeError:
        raise SelectorError(f"top({count!r}): the number of blocks must be an integer") from None

    def choose(blocks: tuple[str, ...]) -> Iterable[str]:
        if not 0 <= count < len(blocks):
            found = counted(len(blocks) - 1, "block")
            raise SelectorError(f"top({count}): the backbone has {found} with parameters")
        return blocks[len(blocks) - 1 - count :]

    return _of_blocks(f"top({count})", choose)


def from_(name: str) -> Selector:
    """Selects a block or stage, all blocks above it, and the head.

    Args:
        name: Name of the block or stage, such as `blocks.6` or `layer4`.

    Raises:
        SelectorError: While selecting, if no block has the name.
    """

    def choose(blocks: tuple[str, ...]) -> Iterable[str]:
        return blocks[first_block(blocks, name, f"from_({name!r})") :]

    return _of_blocks(f"from_({name!r})", choose)


def between(first: str, last: str) -> Selector:
    """Selects a range of blocks, both ends included, without the head.

    Args:
        first: Name of the lowest block or stage.
        last: Name of the highest block or stage.

    Raises:
        SelectorError: While selecting, if no block has one of the names, or `last` is below `first`.
    """
    text = f"between({first!r}, {last!r})"

    def choose(blocks: tuple[str, ...]) -> Iterable[str]:
        start, stop = first_block(blocks, first, text), first_block(blocks, last, text)
        if stop < start:
            raise SelectorError(f"{text}: {last} is below {first}")
        return [block for index, block in enumerate(blocks) if start <= index <= stop or _is_in(block, last)]

    return _of_blocks(text, choose)


def depth(low: float, high: float) -> Selector:
    """Selects the blocks in a range of relative depth, without the head.

    Block `i` of `n` has the depth `(i + 0.5) / n`.

    Args:
        low: Lower end of the range, 0 at the input.
        high: Upper end of the range (exclusive), 1 at the top of the backbone.

    Raises:
        SelectorError: If not `0 <= low < high <= 1`.
    """
    text = f"depth({low}, {high})"
    if not 0 <= low < high <= 1:
        raise SelectorError(f"{text}: the range must be in 0..1, with the lower end first")

    def choose(blocks: tuple[str, ...]) -> Iterable[str]:
        count = len(blocks) - 1
        return [block for index, block in enumerate(blocks[:-1]) if low <= (index + 0.5) / count < high]

    return _of_blocks(text, choose)


def blocks(*names: str | Iterable[str]) -> Selector:
    """Selects the named blocks or stages and nothing else.

    Args:
        *names: Names of blocks or stages, or lists of them; `head` is allowed.

    Raises:
        SelectorError: While selecting, if no block has one of the names.
    """
    known = [name for each in names for name in as_tuple(each)]
    text = f"blocks({', '.join(map(repr, known))})"

    def choose(present: tuple[str, ...]) -> Iterable[str]:
        for name in known:
            first_block(present, name, text)
        return [block for block in present if any(_is_in(block, name) for name in known)]

    return _of_blocks(text, choose, by_position=False)


def match(pattern: str) -> Selector:
    """Selects the parameters whose path matches a regular expression.

    Args:
        pattern: Regular expression, found anywhere in the path (`re.search`).

    Raises:
        SelectorError: If the expression is invalid; while selecting, if it matches no or all parameters.
    """
    text = f"match({pattern!r})"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SelectorError(f"{text}: {error}") from None
    return Selector(text, lambda groups: _search(text, compiled, tuple(groups)))


_ROLES = {
    "norm": r"/[^/]*norm[^/]*/[^/]*$",
    "bias": r"/bias$",
    "kernel": r"/kernel$",
    "attention": r"/attn(_pool)?/(?!fc|norm)",
    "mlp": r"/fc\d/",
    "embedding": r"/(patch_)?embed/",
}
"""Regular expression of the paths of each role; all networks use the same names of modules."""


def role(name: str) -> Selector:
    """Selects the parameters of one role.

    Args:
        name: `norm` (scale and bias of normalizations), `bias`, `kernel`, `attention`, `mlp` (the perceptrons
            between attentions or convolutions), or `embedding` (patches, tokens and positions).

    Raises:
        SelectorError: If the role is unknown; while selecting, if no or all parameters have it.
    """
    if name not in _ROLES:
        raise SelectorError(f"unknown role {name!r}; the roles are {', '.join(_ROLES)}")
    text, compiled = f"role({name!r})", re.compile(_ROLES[name])
    return Selector(text, lambda groups: _search(text, compiled, tuple(groups)))


def is_norm(path: str) -> bool:
    """Returns True if the path is that of a parameter of a normalization."""
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
    """Reads a selector from its expression. No code is executed.

    Example:
        >>> selector = parse("from_('blocks.6') & ~role('norm') | head")

    Args:
        text: The expression, made of the functions of this module, `head`, `|`, `&`, `~` and parentheses.

    Raises:
        SelectorError: If the text is no such expression; the message lists the choices.
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
        raise SelectorError(f"invalid selector {text!r}; use {choices}, joined by | & ~") from None


def first_block(present: tuple[str, ...], name: str, text: str) -> int:
    """Returns the position of the first block that has the name, or is part of the stage of that name.

    Args:
        present: Names of all blocks in order.
        name: Name of a block or stage.
        text: Expression that the error message begins with.

    Raises:
        SelectorError: If there is none; the message lists the blocks.
    """
    for position, block in enumerate(present):
        if _is_in(block, name):
            return position
    raise SelectorError(f"{text} matches no block; the blocks are {', '.join(present)}")


def _search(text: str, pattern: re.Pattern[str], paths: tuple[str, ...]) -> frozenset[str]:
    """Returns the paths that match, or raises if none or all of them match."""
    chosen = [path for path in paths if pattern.search(path)]
    if not chosen:
        shown = ", ".join(paths[:3])
        raise SelectorError(f"{text} matches none of the {len(paths)} parameters, such as {shown}")
    if len(chosen) == len(paths):
        raise SelectorError(f"{text} matches all {len(paths)} parameters; use all_() if that is intended")
    return frozenset(chosen)
