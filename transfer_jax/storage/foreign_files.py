"""Files that operating systems, NAS boxes, network disks and editors put into folders."""

import re
from pathlib import PurePath

_FOREIGN = re.compile(
    r"""
    \. .*                                         # hidden files: .DS_Store, ._x, .nfs0001, .~lock.x#, .x.swp
    | .* ~ | ~ .* | \# .* \#                       # backups and locks of editors and office programs
    | thumbs\.db(:encryptable)? | ehthumbs\.db | desktop\.ini | icon\r
    | @eadir | @tmp | \#recycle | \#snapshot | \$recycle\.bin | system\ volume\ information | lost\+found
    | __macosx | network\ trash\ folder | temporary\ items
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def is_foreign(path: str | PurePath) -> bool:
    """Returns whether a part of a relative path is hidden, or is created by a system or an editor."""
    return any(_FOREIGN.fullmatch(part) for part in PurePath(path).parts)
