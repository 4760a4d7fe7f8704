"""File names made of names that people chose, such as those of phases and arms."""

import hashlib
import re

_MAX_BYTES = 80
"""The longest name that is used as it is; file systems allow 255 bytes, with affixes."""
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows does not allow."""


def file_name(name: str) -> str:
    """Returns a name that every file system accepts as the name of a file or folder.

    Names of letters, digits, spaces inside, `.`, `_`, `-`, `+`, `=`, `,`, `@` and parentheses are returned as
    they are. In others, further characters become `-`, the end of a long name is cut, and a hash of the
    whole name keeps different names different.

    Args:
        name: The name.
    """
    safe = re.sub(r"[^\w.+=,@() -]+", "-", name).strip(" .-") or "unnamed"
    if safe == name and len(name.encode()) <= _MAX_BYTES and not _DEVICES.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    while len(safe.encode()) > _MAX_BYTES - 9:
        safe = safe[:-1]
    return f"{safe}-{digest}"
