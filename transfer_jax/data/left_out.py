"""Counts of the files and folders that are not read, and sentences about them."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from transfer_jax.data.file_endings import UNREADABLE

Reason = Literal["ending", "hidden", "special", "folder", "run", "link"]
"""Why an entry of a folder is not read: its ending is not that of an image; it is a hidden file or one that
systems create; it is a pipe, a socket or a device; it is a hidden folder or one that systems create; it is
the folder of a run; it is a link to a folder that contains it or is read already."""
LeftOut = Counter[tuple[Reason, str]]
"""Numbers of entries by reason, and by the ending of a file or the name of a folder (or an empty text)."""
_FOLDERS: dict[Reason, str] = {
    "folder": "hidden or system folders left out",
    "run": "folders of runs and studies left out",
    "link": "links to folders that contain them or are read already, left out",
}
_SHOWN = 8
"""Largest number of kinds that a sentence names."""


def left_out_notes(left_out: LeftOut) -> tuple[str, ...]:
    """Returns a sentence for each group of files and folders that are not read, with their numbers."""
    endings = {name: count for (reason, name), count in left_out.items() if reason == "ending"}
    images = {name: count for name, count in endings.items() if name in UNREADABLE}
    parts = _counted((count, name or "without an ending") for name, count in endings.items() - images.items())
    for reason, text in (("hidden", "hidden or system files"), ("special", "pipes, sockets or devices")):
        if count := sum(number for (why, _), number in left_out.items() if why == reason):
            parts.append(f"{count:,} {text}")
    notes = []
    if images:
        listed = ", ".join(_counted((count, name) for name, count in images.items()))
        notes.append(
            f"images left out: {listed}; these formats are not read, convert the files to JPEG or PNG"
        )
    if parts:
        notes.append(f"files left out: {', '.join(parts)}")
    for reason, text in _FOLDERS.items():
        if names := _named(left_out, reason):
            notes.append(f"{text}: {', '.join(names)}")
    return tuple(notes)


def _counted(numbers: Iterable[tuple[int, str]]) -> list[str]:
    """Returns the numbers with their kinds, the largest first."""
    ordered = sorted(numbers, key=lambda each: (-each[0], each[1]))
    shown = [f"{count:,} {kind}" for count, kind in ordered[:_SHOWN]]
    rest = sum(count for count, _ in ordered[_SHOWN:])
    return [*shown, f"{rest:,} of other kinds"] if rest else shown


def _named(left_out: LeftOut, wanted: Reason) -> list[str]:
    """Returns the names of the entries that one reason leaves out, and how often each occurs."""
    found = [(count, name) for (reason, name), count in left_out.items() if reason == wanted]
    ordered = sorted(found, key=lambda each: (-each[0], each[1]))
    shown = [f"{name!r}" + (f" ({count:,} times)" if count > 1 else "") for count, name in ordered[:_SHOWN]]
    rest = sum(count for count, _ in ordered[_SHOWN:])
    return [*shown, f"{rest:,} others"] if rest else shown
