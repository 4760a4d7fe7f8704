"""YAML of plain values, for the metadata of model cards."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?: [A-Za-z0-9_./-]+)*")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
"""Words that YAML reads as other values than text."""


def yaml_text(value: Mapping[str, Any]) -> str:
    """Returns a mapping as YAML in block style, with a final newline.

    Args:
        value: Texts, numbers, booleans and None, in mappings and lists that are not empty.
    """
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(item, Mapping | list):
                yield f"{_scalar(name)}:"
                yield from (f"  {line}" for line in _lines(item))
            else:
                yield f"{_scalar(name)}: {_scalar(item)}"
    elif isinstance(value, list):
        for item in value:
            first, *rest = _lines(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _scalar(value: Any) -> str:
    """Returns a value as JSON, which YAML reads too; plain words without quotes."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if isinstance(value, float) and "e" in (digits := repr(value)) and "." not in digits:
        return digits.replace("e", ".0e")  # YAML 1.1 takes 1e-07 for a text.
    return json.dumps(value, ensure_ascii=isinstance(value, str) and not value.isprintable())
