"""Whole repositories of the Hugging Face hub: `hf://OWNER/REPO`, or `hf://OWNER/REPO@REVISION`.

All files come from one commit. A newer commit is used as soon as there is one. Without a connection, the
files of the last download are used.
"""

import os
import re
from pathlib import Path

from transfer_jax.weights.hub_layout import FILES

_REPO = re.compile(r"hf:/+(?P<repo>[\w.-]+/[\w.-]+?)(@(?P<revision>[\w./-]+))?/?")
"""An address, also if `pathlib` shortened `://` to `:/`."""


def is_hub_address(place: str | os.PathLike[str]) -> bool:
    """Returns whether a path or address names a place on the hub."""
    return os.fspath(place).startswith("hf:/")


def local_folder(place: str | os.PathLike[str]) -> Path:
    """Returns the local folder of a repository, downloaded if needed; other paths are returned unchanged.

    Args:
        place: An address `hf://OWNER/REPO`, or a path.

    Raises:
        ValueError: If the address is malformed.
        FileNotFoundError: If the repository or the revision does not exist or is private, or if it is not on
            this machine and downloads are off.
        ConnectionError: If the hub does not respond and the repository is not on this machine.
    """
    if not is_hub_address(place):
        return Path(place)
    found = _REPO.fullmatch(os.fspath(place))
    if found is None:
        raise ValueError(
            f"invalid address {os.fspath(place)!r} of a model; the form is hf://OWNER/REPO or "
            "hf://OWNER/REPO@REVISION"
        )
    return _downloaded(found["repo"], found["revision"])


def _downloaded(repo: str, revision: str | None) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = f"hf://{repo}{f'@{revision}' if revision else ''}"
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(FILES),
            endpoint=os.environ.get("HF_ENDPOINT"),
            library_name="transfer_jax",
        )
    except HFValidationError as error:
        raise ValueError(f"invalid address {where!r}: {_one_line(error)}") from error
    except LocalEntryNotFoundError as error:
        if constants.is_offline_mode():
            raise FileNotFoundError(
                f"{where} is not on this machine, and HF_HUB_OFFLINE turns downloads off; unset it"
            ) from error
        raise ConnectionError(
            f"{where} is not on this machine, and the Hugging Face hub does not respond; "
            "check the connection, or set HF_ENDPOINT to a mirror"
        ) from error
    except HfHubHTTPError as error:
        raise FileNotFoundError(f"{where}: {_one_line(error)}") from error
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            raise ConnectionError(f"{where}: the connection broke ({error}); try again") from error
        raise
    return Path(folder)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
