"""The schedule of a run in words, for readers who do not know selectors."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transfer_jax.counted import counted

_TOP = re.compile(r"top\((\d+)\)")
_FROM = re.compile(r"from_\(['\"](.+)['\"]\)")


def trained_part(selector: str) -> str:
    """Returns the part of a network that a selector trains, in words; an unusual selector as it is.

    Args:
        selector: The text of the selector, such as `top(2)`.
    """
    if selector == "head":
        return "the head"
    if selector == "all_()":
        return "the whole network"
    if found := _TOP.fullmatch(selector):
        blocks = int(found[1])
        several = "the last block" if blocks == 1 else f"the last {blocks:,} blocks"
        return f"{several} and the head" if blocks else "the head"
    if found := _FROM.fullmatch(selector):
        return f"all blocks from {found[1]} on and the head"
    return selector


def schedule_in_words(phases: Sequence[Mapping[str, Any]]) -> str:
    """Returns a sentence on the phases of a schedule.

    Args:
        phases: The phases, as written by `Phase.to_json`.
    """
    parts = [f"{trained_part(each['train'])} for {counted(each['epochs'], 'epoch')}" for each in phases]
    if len(parts) == 1:
        return f"One phase trains {parts[0]}."
    names = ("first", "second", "third", "fourth", "fifth")
    sentences = [
        f"the {names[place] if place < len(names) else 'next'}{' phase' if place == 0 else ''} trains {part}"
        for place, part in enumerate(parts)
    ]
    text = "; ".join(sentences)
    return f"{text[:1].upper()}{text[1:]}."
