"""Names of metrics with the characters that a tracker allows."""

import hashlib
import posixpath
import re


class MetricKeys:
    """Makes the key of each metric in a tracker from its name, which may have the name of a class in it.

    Different names have different keys: a key that another name has already, and a key that is too long, end
    with a hash of the name.

    Args:
        forbidden: A regular expression of the characters that the tracker does not allow.
        longest: The largest number of characters of a key.
    """

    def __init__(self, forbidden: str, longest: int) -> None:
        self._forbidden, self._longest = re.compile(forbidden), longest
        self._names: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """Returns the key of a name."""
        key = self._forbidden.sub("_", name)
        if posixpath.normpath(key) != key or key.startswith(("/", "..")):  # Trackers take keys for paths.
            key = "/".join(part if part.strip(".") else "_" for part in key.split("/"))
        if len(key) > self._longest or self._names.setdefault(key, name) != name:
            digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
            key = f"{key[: self._longest - 9]}_{digest}"
        return key
