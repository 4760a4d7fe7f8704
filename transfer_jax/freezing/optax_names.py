"""Names of Optax's optimizers, schedules and losses, with settings, such as `optax.lamb(b1=0.9)`."""

import ast
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

_UNSUITABLE = {
    "lbfgs": "searches along a line, for which it needs the loss as a function",
    "dpsgd": "needs the gradient of each example",
    "sophia": "needs the loss as a function",
    **dict.fromkeys(
        ("schedule_free", "schedule_free_adamw", "schedule_free_sgd"),
        "evaluates other parameters than those that it trains",
    ),
}
"""Optimizers of Optax that a training step does not support, with the reason."""


def optimizer_name(text: str) -> str:
    """Returns the full name of an optimizer of Optax and its settings.

    Example:
        >>> optimizer_name("lamb(b1=0.8)")
        'optax.lamb(b1=0.8)'
        >>> optimizer_name("muon")
        'optax.contrib.muon'

    Args:
        text: The name, with or without `optax.`, and settings as literals in parentheses.

    Raises:
        ValueError: If there is no such optimizer, or it does not take the settings.
    """
    return _full_name(text, _optimizers(), "learning_rate")


def schedule_name(text: str) -> str:
    """Returns the full name of a schedule of Optax and its settings; see `optimizer_name`."""
    import optax

    schedules = vars(optax.schedules).items()
    functions = {name: each for name, each in schedules if _parameters(each)}
    known = [name for name in functions if name.endswith(("_schedule", "_decay"))]
    return _full_name(text, {f"optax.{name}": functions[name] for name in known})


def loss_name(text: str) -> str:
    """Returns the full name of a loss of Optax and its settings; see `optimizer_name`."""
    return _full_name(text, _losses(), "logits", "labels")


def name_of_function(value: Any, full_name: Callable[[str], str]) -> str | None:
    """Returns the full name of a function of Optax with literal settings; None for any other object.

    Args:
        value: The object, such as `optax.lamb` or `functools.partial(optax.lamb, b1=0.9)`.
        full_name: `optimizer_name`, `schedule_name` or `loss_name`.
    """
    function, settings = value, {}
    if isinstance(value, functools.partial) and not value.args:
        function, settings = value.func, value.keywords
    if str(getattr(function, "__module__", "")).split(".")[0] != "optax" or not inspect.isfunction(function):
        return None
    written = ", ".join(f"{key}={each!r}" for key, each in settings.items())
    try:
        name = full_name(f"optax.{function.__name__}({written})")
        same = from_name(name)
        return name if (same.func, same.keywords) == (function, settings) else None
    except (ValueError, TypeError):
        return None


def from_name(text: str) -> functools.partial[Any]:
    """Returns the function of a full name, with its settings, to call with the other arguments."""
    import optax

    name, settings = _parsed(text)
    found: Any = optax
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return functools.partial(found, **settings)


@functools.cache
def _optimizers() -> Mapping[str, Callable[..., Any]]:
    """Returns the optimizers of Optax by full name."""
    import optax
    import optax.contrib

    found = {}
    for prefix, module in (("optax", optax), ("optax.contrib", optax.contrib)):
        for name, each in vars(module).items():
            public = not name.startswith(("_", "scale_by_")) and name not in _UNSUITABLE
            if public and "learning_rate" in _parameters(each):
                found[f"{prefix}.{name}"] = each
    return found


@functools.cache
def _losses() -> Mapping[str, Callable[..., Any]]:
    """Returns the losses of logits and the probabilities of classes, by full name."""
    import optax

    found = {}
    for name, each in vars(optax.losses).items():
        if not name.startswith("_") and _parameters(each)[:2] == ["logits", "labels"]:
            found[f"optax.{name}" if hasattr(optax, name) else f"optax.losses.{name}"] = each
    return found


def _parameters(value: Any) -> list[str]:
    """Returns the names of the parameters of a function, or of a function with settings."""
    function = inspect.isfunction(value) or isinstance(value, functools.partial)
    return [*inspect.signature(value).parameters] if function else []


def _full_name(text: str, known: Mapping[str, Callable[..., Any]], *given: str) -> str:
    """Returns the full name of one of some functions and its settings.

    Args:
        text: The name and the settings.
        known: The functions by full name.
        given: Names of the arguments that the settings must not contain.
    """
    name, settings = _parsed(text)
    short = {full.split(".")[-1]: full for full in reversed([*known])}
    full = name if name in known else short.get(name.removeprefix("optax."), "")
    if not full:
        if (reason := _UNSUITABLE.get(name.split(".")[-1])) is not None:
            raise ValueError(f"{name} is unsupported: it {reason}")
        close = difflib.get_close_matches(name.split(".")[-1], short)
        hint = f"; did you mean {' or '.join(short[each] for each in close)}?" if close else ""
        raise ValueError(f"Optax has no {name!r}{hint}")
    parameters = inspect.signature(known[full]).parameters
    allowed = [each for each in parameters if each not in given]
    if unknown := [key for key in settings if key not in allowed]:
        raise ValueError(f"{full} has no setting {unknown[0]!r} here; it has {', '.join(allowed)}")
    required = [each for each in allowed if parameters[each].default is inspect.Parameter.empty]
    if missing := [each for each in required if each not in settings]:
        raise ValueError(f"{full} needs {missing[0]}, as in {full}({missing[0]}=…)")
    written = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"{full}({written})" if settings else full


def _parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Returns the name and the settings of a text such as `optax.lamb(b1=0.9)`."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        call = node if isinstance(node, ast.Call) else None
        if call and (call.args or not all(each.arg for each in call.keywords)):
            raise ValueError
        settings = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords} if call else {}
        named = call.func if call else node
        if not isinstance(named, (ast.Name, ast.Attribute)):
            raise ValueError
        return ast.unparse(named), settings
    except (SyntaxError, ValueError):
        raise ValueError(
            f"{text!r} is no name with settings such as 'optax.lamb(b1=0.9)', whose settings are literals"
        ) from None
