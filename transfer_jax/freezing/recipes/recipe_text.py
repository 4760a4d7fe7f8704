"""Schedules written as text, such as `five_steps(top(2), epochs=5)` on the command line."""

import ast
import difflib
import inspect
from typing import Any

from transfer_jax.freezing.recipes import RECIPES
from transfer_jax.freezing.schedule import Schedule

_ALIASES = {"head": "feature_extraction"}
_DEFAULTS = {"unfreeze": "top(2)"}
"""Values of arguments that a recipe needs, if the text leaves them out."""


def schedule_from_text(text: str) -> Schedule:
    """Returns the schedule of a recipe by name, with its arguments as in Python.

    Selectors need no quotation marks. `head` is short for `feature_extraction`. If the blocks to unfreeze are
    left out, they are `top(2)`. Nothing else is executed.

    Example:
        >>> print(schedule_from_text("five_steps(top(3), epochs=5)"))
        head: head x 60 -> top: top(3) x 5

    Args:
        text: The text.

    Raises:
        ValueError: If the text is malformed, there is no such recipe, or an argument is unknown or invalid.
    """
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(
            f"invalid schedule {text!r}: {error.msg}; write it as five_steps or five_steps(top(2), epochs=5)"
        ) from None
    return _schedule(expression)


def _schedule(node: ast.expr) -> Schedule:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name):
        raise ValueError(f"invalid schedule {ast.unparse(node)!r}; it starts with the name of a recipe")
    name = call.func.id
    recipe = RECIPES.get(_ALIASES.get(name, name))
    if recipe is None:
        names = [*_ALIASES, *RECIPES]
        close = difflib.get_close_matches(name, names)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"no recipe {name!r}{hint} The recipes are {', '.join(names)}")
    arguments = [_value(each) for each in call.args]
    options = {each.arg or "": _value(each.value) for each in call.keywords}
    signature = inspect.signature(recipe)
    needed = [
        each for each, parameter in signature.parameters.items() if parameter.default is parameter.empty
    ]
    for missing in needed[len(arguments) :]:
        if missing in _DEFAULTS:
            options.setdefault(missing, _DEFAULTS[missing])
    try:
        signature.bind(*arguments, **options)
        return recipe(*arguments, **options)
    except TypeError as error:
        reason = str(error).rpartition("() ")[2]
        raise ValueError(f"{name}: {reason}; its arguments are {_signature_text(signature)}") from None


def _signature_text(signature: inspect.Signature) -> str:
    """Returns the arguments of a recipe with their defaults."""
    return ", ".join(
        f"{name}={parameter.default!r}"
        if parameter.default is not parameter.empty
        else "the fields of Phase"
        if parameter.kind is parameter.VAR_KEYWORD
        else name
        for name, parameter in signature.parameters.items()
    )


def _value(node: ast.expr) -> Any:
    """Returns a literal, or the text of anything else, such as a selector."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
