"""Downloads, from a server on this machine: the tests have no network."""

import functools
import hashlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from transfer_jax.weights import hub

BYTES = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(BYTES).hexdigest()
COMMIT = "a" * 40


class Server(ThreadingHTTPServer):
    asked: list[tuple[str, str, str | None]]
    url: str


class Handler(BaseHTTPRequestHandler):
    """Serves `BYTES`: plainly, as the hub does, and as a server that hangs up half-way."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        self.answer(BYTES)

    def answer(self, body: bytes) -> None:
        asked = self.headers.get("Range")
        assert isinstance(self.server, Server)
        self.server.asked.append((self.command, self.path, asked))
        if self.path.endswith("/missing.pth") or "nobody" in self.path:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(BYTES) - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(BYTES) - 1}/{len(BYTES)}")
        self.send_header("ETag", f'"{SHA256}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        body = body[first:]
        if "broken" in self.path:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between retries
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)


def parts(folder: Path) -> list[Path]:
    return [*folder.rglob("*.part")]


def test_a_file_is_downloaded_once(server, tmp_path):
    url = f"{server.url}/models/net-{SHA256[:8]}.pth"
    assert hub.locate(url) is None
    path = hub.fetch(url, SHA256[:8])
    assert path.read_bytes() == BYTES
    assert path.is_relative_to(tmp_path / "cache")
    assert hub.locate(url) == hub.fetch(url, SHA256[:8]) == path
    assert [command for command, *_ in server.asked] == ["GET"]
    assert not parts(tmp_path)


def test_an_interrupted_download_resumes(server):
    url = f"{server.url}/net.pth"
    part = Path(f"{hub.download_path(url)}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(BYTES[:1000])
    assert hub.fetch(url, SHA256).read_bytes() == BYTES
    assert server.asked == [("GET", "/net.pth", "bytes=1000-")]


def test_a_connection_that_breaks_keeps_what_came(server, tmp_path):
    with pytest.raises(ConnectionError, match=r"broken\.pth: the connection broke .*resumes after \d"):
        hub.fetch(f"{server.url}/broken.pth", SHA256)
    (part,) = parts(tmp_path)
    kept = part.read_bytes()
    assert len(kept) > len(BYTES) / 2  # it was tried again, from there
    assert BYTES.startswith(kept)
    assert len(kept) < len(BYTES)


def test_a_file_with_another_hash_is_not_kept(server, tmp_path):
    url = f"{server.url}/net.pth"
    with pytest.raises(ValueError, match=f"has the SHA-256 {SHA256}, but the published one is 0123"):
        hub.fetch(url, "0123")
    assert hub.locate(url) is None
    assert not parts(tmp_path)


def test_a_spoilt_part_does_not_spoil_the_next_try(server):
    url = f"{server.url}/net.pth"
    part = Path(f"{hub.download_path(url)}.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="SHA-256"):
        hub.fetch(url, SHA256)
    assert hub.fetch(url, SHA256).read_bytes() == BYTES


def test_missing_files_are_named(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"/missing\.pth: .*404"):
        hub.fetch(f"{server.url}/missing.pth")
    with pytest.raises(ConnectionError, match="the connection broke"):
        hub.fetch("http://127.0.0.1:9/net.pth")
    with pytest.raises(FileNotFoundError, match=r"missing: pip install no-such-package$"):
        hub.fetch("package:no-such-package/net.pth")
    with pytest.raises(FileNotFoundError, match="no weight file at"):
        hub.fetch(str(tmp_path / "net.pth"))


@pytest.mark.parametrize(
    "address", ["hf://net.pth", "hf://../../net.pth", "https://host", "https:///net.pth"]
)
def test_malformed_addresses(address):
    with pytest.raises(ValueError, match="invalid address"):
        hub.fetch(address)


def in_a_process(code: str, tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs code where the hub is the server: the hub's library reads its variables when it is imported."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", **variables}
    code = f"from transfer_jax.weights import hub\n{code}"
    run = functools.partial(subprocess.run, capture_output=True, text=True, timeout=600)
    return run([sys.executable, "-c", code], env=environment, check=False)


def test_the_hub_is_asked_once_and_its_hash_checked(server, tmp_path):
    address = "hf://owner/net/model.safetensors"
    fetch = f"print(hub.fetch({address!r}).resolve())"
    done = in_a_process(fetch, tmp_path, HF_ENDPOINT=server.url)
    assert done.returncode == 0, done.stderr
    blob = Path(done.stdout.strip())
    assert blob.read_bytes() == BYTES
    assert ("GET", "/owner/net/resolve/main/model.safetensors") in [asked[:2] for asked in server.asked]
    count = len(server.asked)
    offline = in_a_process(fetch, tmp_path, HF_ENDPOINT=server.url, HF_HUB_OFFLINE="1")
    assert (offline.stdout, len(server.asked)) == (done.stdout, count), offline.stderr


@pytest.mark.parametrize(
    ("address", "variables", "message"),
    [
        ("hf://owner/net/missing.pth", {}, "FileNotFoundError: hf://owner/net/missing.pth: "),
        ("hf://owner/net/net.pth", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE turns downloads off"),
        ("https://host/net.pth", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE turns downloads off"),
        (
            "hf://owner/net/net.pth",
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            "the Hugging Face hub does not respond",
        ),
    ],
)
def test_errors_of_the_hub(server, tmp_path, address, variables, message):
    # It tries five times, and waits in between.
    impatient = f"import time; time.sleep = lambda seconds: None; hub.fetch({address!r})"
    done = in_a_process(impatient, tmp_path, **{"HF_ENDPOINT": server.url, **variables})
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
