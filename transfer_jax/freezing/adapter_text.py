"""Adapters as text, such as `lora(match('attn/qkv/kernel'), rank=8) + prompts(tokens=10)`.

A phase has this text. The selector in it becomes the list of adapted layers once the network is known.
"""

import ast
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_type_hints

from transfer_jax.fields import as_tuple
from transfer_jax.freezing.selectors import Selector, SelectorError, parse
from transfer_jax.models.adapters.adapter import KINDS, Adapter
from transfer_jax.models.paths import block_of

_SELECTED = {
    "lora": "match('attn/qkv/kernel')",
    "dora": "match('attn/qkv/kernel')",
    "ia3": "match('(attn/qkv|fc2)/kernel')",
    "prompts": "match('/attn/')",
    "parallel": "match('/fc[12]/')",
}
"""The selectors of the adapted layers by kind, if none is given: those of the publications."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclasses.dataclass(frozen=True)
class AdapterText:
    """An adapter that is not yet resolved to layers of a network.

    Attributes:
        kind: The kind: a key of `KINDS`.
        selector: Selector of the adapted parameters.
        settings: The settings of the kind, and the name.
    """

    kind: str
    selector: Selector
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of the adapter, by default that of its kind."""
        return self.settings["name"]

    def __str__(self) -> str:
        shown = [f"{key}={value!r}" for key, value in self.settings.items()]
        return f"{self.kind}({', '.join([str(self.selector), *shown])})"

    def resolve(self, groups: Mapping[str, str]) -> Adapter:
        """Returns the adapter with the layers of a network.

        Args:
            groups: The block of each parameter by path, in the order of the blocks.

        Raises:
            SelectorError: If the selector selects no layer that the kind can adapt; the message names some
                of the selected parameters.
        """
        chosen = self.selector.select(groups)
        layers = [*dict.fromkeys(filter(None, map(_LAYERS[self.kind], filter(chosen.__contains__, groups))))]
        if self.kind == "parallel":
            layers = [
                each for each in layers if {f"{each}/{name}/kernel" for name in ("fc1", "fc2")} <= chosen
            ]
        if not layers:
            raise SelectorError(
                f"{self.kind}({self.selector}) selects {_WANTED[self.kind]}, only "
                f"{', '.join(sorted(chosen)[:3])}"
            )
        return KINDS[self.kind](layers=tuple(layers), **self.settings)


def _kernel_layer(path: str) -> str | None:
    """Returns the path of the layer of a kernel; None for another parameter or the head's."""
    inside = path.startswith("backbone/") and path.endswith("/kernel")
    return path.removesuffix("/kernel") if inside else None


def _perceptron(path: str) -> str | None:
    """Returns the path of the module with the perceptron that a kernel is part of."""
    found = re.fullmatch(r"(backbone/.+)/fc[12]/kernel", path)
    return found and found[1]


def _transformer_block(path: str) -> str | None:
    """Returns the path of the block whose attention a parameter is part of."""
    return f"backbone/{block_of(path)}" if re.fullmatch(r"backbone/[^/]+/attn/.+", path) else None


_LAYERS = {
    "lora": _kernel_layer,
    "dora": _kernel_layer,
    "ia3": _kernel_layer,
    "parallel": _perceptron,
    "prompts": _transformer_block,
}
_WANTED = {
    **dict.fromkeys(("lora", "dora", "ia3"), "no kernel (role('kernel') selects all)"),
    "parallel": "no pair of the kernels fc1 and fc2 of a perceptron",
    "prompts": "no attention of a block",
}


def parse_adapters(text: Any) -> tuple[AdapterText, ...]:
    """Reads adapters from text. No code is executed.

    Example:
        >>> [str(each) for each in parse_adapters("lora(role('kernel'), rank=2)")]
        ["lora(role('kernel'), rank=2, alpha=8.0, parts='qv', name='lora')"]

    Args:
        text: Calls of `lora`, `dora`, `ia3`, `prompts` and `parallel` with a selector of the adapted kernels
            or blocks, which may be left out, and settings, joined by `+`; or several texts.

    Raises:
        SelectorError: If the text is invalid; the message lists the choices.
    """
    found = [each for one in as_tuple(text) if str(one) for each in _calls(str(one))]
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise SelectorError(f"adapters need different names, got {', '.join(names)}; use name='…'")
    return tuple(found)


def join_adapters(adapters: Iterable[AdapterText]) -> str:
    """Returns the text of adapters; `parse_adapters` reads it."""
    return " + ".join(map(str, adapters))


def _calls(text: str) -> list[AdapterText]:
    def calls(node: ast.AST) -> list[AdapterText]:
        match node:
            case ast.Expression(body=body):
                return calls(body)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return [*calls(left), *calls(right)]
            case ast.Name(id=kind) if kind in KINDS:
                return [_one(kind, [], {})]
            case ast.Call(func=ast.Name(id=kind), args=args, keywords=keywords) if kind in KINDS:
                values = {each.arg or "": ast.literal_eval(each.value) for each in keywords}
                return [_one(kind, args, values)]
        raise SyntaxError

    try:
        return calls(ast.parse(text.strip(), mode="eval"))
    except SelectorError:
        raise
    except (SyntaxError, ValueError):
        choices = ", ".join(f"{kind}(selector, {', '.join(_defaults(kind))})" for kind in KINDS)
        raise SelectorError(f"invalid adapter {text!r}; use {choices}, joined by +") from None


def _one(kind: str, args: list[ast.expr], values: Mapping[str, Any]) -> AdapterText:
    """Returns one adapter from its arguments."""
    if len(args) > 1:
        raise SyntaxError
    selected = ast.unparse(args[0]) if args else _SELECTED[kind]
    if args and isinstance(args[0], ast.Constant):
        selected = str(args[0].value)
    defaults = _defaults(kind)
    if unknown := sorted({*values} - {*defaults}):
        raise SelectorError(f"{kind} has no setting {unknown[0]!r}; its settings are {', '.join(defaults)}")
    settings = {**defaults, **values}
    for name, value in settings.items():
        _check(kind, name, value, defaults[name])
    settings = {name: type(defaults[name])(value) for name, value in settings.items()}
    return AdapterText(kind, parse(selected), settings)


def _check(kind: str, name: str, value: Any, default: Any) -> None:
    """Raises `SelectorError` if the value of a setting is invalid."""
    choices = get_args(get_type_hints(KINDS[kind]).get(name))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "name":
        valid, allowed = isinstance(value, str) and _NAME.fullmatch(value), "letters, digits, _ and -"
    elif choices:
        valid, allowed = value in choices, f"one of {', '.join(map(repr, choices))}"
    elif isinstance(default, bool):
        valid, allowed = isinstance(value, bool), "True or False"
    elif isinstance(default, int):
        valid, allowed = number and value >= 1 and value == int(value), "a whole number of at least 1"
    else:
        valid, allowed = number and value > 0, "a number above 0"
    if not valid:
        raise SelectorError(f"{kind}: {name} must be {allowed}, got {value!r}")


def _defaults(kind: str) -> dict[str, Any]:
    """Returns the settings of a kind with their default values."""
    fields = [each for each in dataclasses.fields(KINDS[kind]) if each.name not in ("name", "layers")]
    return {**{each.name: each.default for each in fields}, "name": kind}
