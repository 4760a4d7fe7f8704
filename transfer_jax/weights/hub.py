"""Files of weights on this machine, on the Hugging Face hub and on the web. Downloads are cached.

An address is one of

    package:NAME/FILE            a file of an installed Python package
    hf://OWNER/REPO/FILE         a file of a Hugging Face repository; `REPO@REVISION` for another revision
    https://HOST/FILE            a file on the web
    FILE                         a path

Interrupted downloads resume. `HF_HUB_OFFLINE=1` turns downloads off, `HF_ENDPOINT` sets a mirror of the hub,
and `HF_HOME` and `TRANSFER_JAX_CACHE` set the folders of the cache.
"""

import hashlib
import importlib.util
import os
import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from transfer_jax.storage import atomic_write
from transfer_jax.storage.file_lock import file_lock
from transfer_jax.user_cache import user_cache

_HUB = re.compile(r"hf://(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+?))?/(?P<file>[\w.-]+)")
_PACKAGE = re.compile(r"package:(?P<name>[\w.-]+)/(?P<file>.+)")


ExpectedHash = tuple[str, str | None]
"""The algorithm of a hash and the published hash, or its first digits; None if no hash was published."""


class HubFile(NamedTuple):
    """A file of a Hugging Face repository."""

    repo: str
    revision: str | None
    file: str


def is_remote(address: str) -> bool:
    """Returns whether an address is that of a file to download."""
    return address.startswith(("hf://", "https://", "http://"))


def install_hint(address: str) -> str:
    """Returns how to get the file: the command `pip install …`, or "download", which is automatic."""
    package = _PACKAGE.fullmatch(address)
    return f"pip install {package['name']}" if package else "download"


def locate(address: str) -> Path | None:
    """Returns the path of the file on this machine, or None if it is not there.

    Raises:
        ValueError: If the address is malformed.
    """
    if package := _PACKAGE.fullmatch(address):
        found = importlib.util.find_spec(package["name"].replace("-", "_"))
        path = Path(found.origin).parent / package["file"] if found and found.origin else None
    elif address.startswith("hf://"):
        from huggingface_hub import try_to_load_from_cache

        hub_file = _hub_file(address)
        cached = try_to_load_from_cache(hub_file.repo, hub_file.file, revision=hub_file.revision)
        path = Path(cached) if isinstance(cached, str) else None
    else:
        path = download_path(address) if is_remote(address) else Path(address)
    return path if path and path.exists() else None


def fetch(address: str, sha256: str | None = None, md5: str | None = None) -> Path:
    """Returns the path of the file. Downloads it first if it is not on this machine, with a progress bar.

    Args:
        address: The address.
        sha256: SHA-256 of the file, or its first digits, as in PyTorch's file names.
        md5: MD5 of the file, for files that are published with no other hash. It detects damage, but not
            tampering.

    Raises:
        FileNotFoundError: If the file does not exist, or if it is not on this machine and downloads are off.
        ConnectionError: If the host does not respond or the connection breaks. A partial download is kept.
        ValueError: If the file has another hash, or the address is malformed.
    """
    path, published = locate(address), (("sha256", sha256), ("md5", md5))
    if path is not None:
        _check_hashes(path, *published)
        return path
    if address.startswith("hf://"):
        return _from_hub(_hub_file(address), *published)
    if is_remote(address):
        return _from_web(address, *published)
    if _PACKAGE.fullmatch(address):
        raise FileNotFoundError(f"{address} is part of a package that is missing: {install_hint(address)}")
    raise FileNotFoundError(f"no weight file at {address}: the path does not exist")


def _hub_file(address: str) -> HubFile:
    found = _HUB.fullmatch(address)
    if found is None:
        raise ValueError(f"invalid address {address!r}; the form is hf://OWNER/REPO/FILE")
    return HubFile(found["repo"], found["revision"], found["file"])


def _from_hub(hub_file: HubFile, *published: ExpectedHash) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    where = f"hf://{hub_file.repo}/{hub_file.file}"
    if constants.is_offline_mode():
        raise _offline(where)
    try:
        path = hf_hub_download(
            hub_file.repo,
            hub_file.file,
            revision=hub_file.revision,
            endpoint=os.environ.get("HF_ENDPOINT"),
            library_name="transfer_jax",
        )
    except LocalEntryNotFoundError as error:  # the hub does not respond
        raise ConnectionError(
            f"{where} is not on this machine, and the Hugging Face hub does not respond; "
            "check the connection, or set HF_ENDPOINT to a mirror"
        ) from error
    except HfHubHTTPError as error:  # the repository, revision or file does not exist, or needs a login
        raise FileNotFoundError(f"{where}: {_one_line(error)}") from error
    except Exception as error:
        if type(error).__module__.startswith("httpx"):
            raise ConnectionError(
                f"{where}: the connection broke ({error}); try again, and the download resumes"
            ) from error
        raise
    blob = Path(path).resolve().name  # for large files, the name is the hub's hash
    _check_hashes(Path(path), ("sha256", blob if re.fullmatch("[0-9a-f]{64}", blob) else None), *published)
    return Path(path)


def _from_web(url: str, *published: ExpectedHash) -> Path:
    from huggingface_hub import constants

    if constants.is_offline_mode():
        raise _offline(url)
    path = download_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with file_lock(path.with_name(f"{path.name}.lock")):
        if path.is_file():  # another process has downloaded it
            _check_hashes(path, *published)
            return path
        _download(url, part)
        try:
            _check_hashes(part, *published)
        except ValueError:
            part.unlink()
            raise
        part.replace(path)
    return path


def _download(url: str, part: Path) -> None:
    """Starts a download, or resumes it at the end of `part`."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get

    try:
        with part.open("ab") as file:
            http_get(url, file, resume_size=file.tell())
    except HfHubHTTPError as error:
        if error.response.status_code == 416:  # the part does not match the file on the server
            part.unlink()
            raise ConnectionError(
                f"{url} has changed since a part of it was downloaded; try again to download all of it"
            ) from error
        part.unlink()
        raise FileNotFoundError(f"{url}: {_one_line(error)}") from error
    except Exception as error:
        if not (isinstance(error, OSError) or type(error).__module__.startswith("httpx")):
            raise
        kept = part.stat().st_size if part.exists() else 0
        raise ConnectionError(
            f"{url}: the connection broke ({error}); try again, and the download resumes after {kept:,} bytes"
        ) from error


def _offline(where: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{where} is not on this machine, and HF_HUB_OFFLINE turns downloads off; unset it to download"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def download_path(url: str) -> Path:
    """Returns the place in the cache of a file on the web.

    Raises:
        ValueError: If the address is malformed.
    """
    parts = urlsplit(url)
    name = PurePosixPath(parts.path).name
    if not name or not parts.netloc:
        raise ValueError(f"invalid address {url!r}; the form is https://HOST/FILE")
    folder = os.environ.get("TRANSFER_JAX_CACHE")
    place = hashlib.sha256(url.encode()).hexdigest()[:12]
    return (Path(folder, "weights") if folder else user_cache("weights")) / place / name


def _check_hashes(path: Path, *published: ExpectedHash) -> None:
    found = {kind: atomic_write.digest(path, kind) for kind in {kind for kind, digits in published if digits}}
    for kind, digits in published:
        if digits and not found[kind].startswith(digits):
            name = {"sha256": "SHA-256", "md5": "MD5"}[kind]
            raise ValueError(
                f"{path} has the {name} {found[kind]}, but the published one is {digits}; "
                "delete the file and download it again"
            )
