"""Uploads to the Hugging Face hub.

The token of `hf auth login` or of the variable `HF_TOKEN` is used. `HF_ENDPOINT` sets another hub.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from transfer_jax.weights.hub_folder import is_hub_address

_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def repo_id(place: str) -> str:
    """Returns `OWNER/NAME` of a repository, given as such or as `hf://OWNER/NAME`.

    Raises:
        ValueError: If the name is malformed.
    """
    name = re.sub(r"^hf:/+", "", place) if is_hub_address(place) else place
    if not _REPO.fullmatch(name):
        raise ValueError(f"invalid repository {place!r}; the form is OWNER/NAME or hf://OWNER/NAME")
    return name


def upload_files(
    files: Sequence[Path],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload a model",
) -> str:
    """Uploads files to the top of a repository in one commit, and creates the repository if it is missing.

    Files that are there already, unchanged, are not uploaded again. Other files of the repository are kept.

    Args:
        files: The files.
        repo: The repository, `OWNER/NAME`.
        private: Whether a repository that is created is private.
        revision: The branch; None for `main`.
        message: The message of the commit.

    Returns:
        The address of the commit.

    Raises:
        ValueError: If the name of the repository or the metadata of the model card are invalid.
        PermissionError: If nobody is logged in, or the user has no right to write there.
        ConnectionError: If uploads are off, or the hub does not respond or reports an error of its own.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    where = f"hf://{repo}"
    if constants.is_offline_mode():
        raise ConnectionError(f"{where}: HF_HUB_OFFLINE turns uploads off; unset it to upload")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="transfer_jax")
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        operations = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in files]
        return api.create_commit(repo, operations, commit_message=message, revision=revision).commit_url
    except HfHubHTTPError as error:
        raise _explained(where, error) from error
    except Exception as error:
        reason = error.__cause__ if isinstance(error, RuntimeError) else error  # Threads upload large files.
        if isinstance(reason, HfHubHTTPError):
            raise _explained(where, reason) from error
        if type(reason).__module__.startswith("httpx"):
            raise ConnectionError(
                f"{where}: the Hugging Face hub does not respond ({reason}); check the connection, or set "
                "HF_ENDPOINT to a mirror"
            ) from error
        raise


def _explained(where: str, error: Exception) -> Exception:
    """Returns an error of the hub as one that names its remedy."""
    reason = " ".join(str(error).split())
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return PermissionError(f"{where}: not logged in ({reason}); run `hf auth login`, or set HF_TOKEN")
    if status == 403:
        return PermissionError(f"{where}: no right to write there ({reason}); use a token that may write")
    if status is not None and status < 500:
        return ValueError(f"{where}: {reason}")
    return ConnectionError(f"{where}: {reason}")
