"""Buckets on this machine: a folder that is used like one, and servers of S3 and of Google Cloud Storage.

A test file makes its fixtures with `server_fixture` and `bucket_fixture`.
"""

import contextlib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from s3_server import Server, serving

from transfer_jax.storage import object_cache, remote


class Bucket:
    """A bucket on this machine's server; the tests look into it past the package."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.system = fsspec.filesystem(kind, skip_instance_cache=True, use_listings_cache=False)

    def address(self, path: str) -> str:
        return f"{self.kind}://bucket/{path}"

    def objects(self, prefix: str) -> dict[str, bytes]:
        """The objects below a prefix, by name."""
        found = self.system.find(f"bucket/{prefix}")
        return {name.removeprefix("bucket/"): self.system.cat_file(name) for name in found}

    def put(self, root: Path, name: str) -> None:
        """Copies all files of a local folder."""
        for file in sorted(root.rglob("*")):
            if file.is_file():
                self.system.put_file(str(file), f"bucket/{name}/{file.relative_to(root).as_posix()}")

    def clear(self) -> None:
        """Deletes all objects."""
        for name in self.objects(""):
            self.system.rm_file(f"bucket/{name}")
        self.system.invalidate_cache()


class FolderStorage(DirFileSystem):
    """A local folder with the interface and the addresses of object storage."""

    def unstrip_protocol(self, name: str) -> str:
        return f"gs://{name}"


@contextlib.contextmanager
def folder(root: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    storage = FolderStorage(root, fsspec.filesystem("file", auto_mkdir=True))
    patch.setattr(fsspec, "filesystem", lambda kind, **options: storage)
    yield "gs"


@contextlib.contextmanager
def s3(root: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    # The clients of an earlier server in this process would look for it at its former port.
    s3fs.S3FileSystem.clear_instance_cache()
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    found = moto.ThreadedMotoServer(port=0, verbose=False)
    found.start()
    _, port = found.get_host_and_port()
    # The server keeps its buckets in this process, also after it stopped.
    reset = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    server_variables(patch, port)
    yield "s3"
    found.stop()


@contextlib.contextmanager
def failing_s3(root: Path, patch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of S3 that lets requests fail, count or kill as a test chooses; its buckets are folders."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    s3fs.S3FileSystem.clear_instance_cache()
    server = Server(root)
    with serving(server) as port:
        server_variables(patch, port)
        yield server


def server_variables(patch: pytest.MonkeyPatch, port: int) -> None:
    """Sets the environment variables of a server of S3 on this machine."""
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name, value in (
        ("ACCESS_KEY_ID", "test"),
        ("SECRET_ACCESS_KEY", "test"),
        ("DEFAULT_REGION", "us-east-1"),
    ):
        patch.setenv(f"AWS_{name}", value)


@contextlib.contextmanager
def gs(root: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    gcsfs = pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    gcsfs.GCSFileSystem.clear_instance_cache()
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="the emulator is not installed")
    found = emulator.create_server("127.0.0.1", 0, in_memory=True)
    found.start()
    assert found._api._httpd is not None  # It listens.
    port = found._api._httpd.server_address[1]
    # The server has no gRPC, by which gcsfs would ask it for the kind of each bucket.
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # TensorStore writes the arrays of Orbax; it looks for no credentials of a machine in the cloud.
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{port}")
    patch.setenv("GCE_METADATA_ROOT", "127.0.0.1:1")
    yield "gs"
    found.stop()


def server_fixture(*kinds: Callable[..., Any]) -> Any:
    """Returns a fixture: a bucket of each kind for the tests of a module; `folder` is for all machines."""
    params = [each if each is folder else pytest.param(each, marks=pytest.mark.extended) for each in kinds]

    @pytest.fixture(scope="module", params=params)
    def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
        with (
            pytest.MonkeyPatch.context() as patch,
            request.param(tmp_path_factory.mktemp("bucket"), patch) as kind,
        ):
            bucket = Bucket(kind)
            bucket.system.mkdir("bucket")
            yield bucket

    return server


def bucket_fixture() -> Any:
    """Returns a fixture: the bucket of the fixture `server`, empty, for a machine with empty caches."""

    @pytest.fixture
    def bucket(server: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
        new_machine(monkeypatch, tmp_path)
        server.clear()
        return server

    return bucket


def new_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Continues as if on another machine, whose copies and cache of objects are in a folder."""
    monkeypatch.setenv(remote.CACHE, str(folder / "mirrors"))
    monkeypatch.setenv(object_cache.FOLDER, str(folder / "objects"))
    monkeypatch.setattr(remote, "_mirrors", {})
