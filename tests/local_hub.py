"""A hub on this machine: the parts of the Hugging Face hub's HTTP interface that its client uses."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN, READER = "hf_writes", "hf_reads"
"""The tokens of a user who may write, and of one who may not."""


class LocalHub(ThreadingHTTPServer):
    """Repositories of models: for each its commits, oldest first, of files by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.large: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.messages: list[str] = []

    def commit(self, repo: str) -> str:
        return hashlib.sha1(f"{repo} {len(self.repos[repo])}".encode()).hexdigest()

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes] | None:
        for number, files in enumerate(self.repos.get(repo, ()), 1):
            last = number == len(self.repos[repo])
            found = hashlib.sha1(f"{repo} {number}".encode()).hexdigest()
            if revision == found or (revision == "main" and last):
                return files
        return None


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    """Runs a hub in a thread."""
    with LocalHub() as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LocalHub  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format, *args):
        pass

    def reply(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, kind: str, message: str) -> None:
        self.reply(status, {"error": message}, X_Error_Code=kind, X_Error_Message=message)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def may(self, *tokens: str) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given in tokens:
            return True
        known = given in (TOKEN, READER)
        self.fail(
            403 if known else 401, "", "no right to write" if known else "Invalid username or password."
        )
        return False

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/(.+))?", path):
            self.describe(found[1], found[3] or "main")
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self.tree(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.file(*found.groups())
        else:
            self.fail(404, "", f"unknown {path}")

    def found(self, repo: str, revision: str) -> dict[str, bytes] | None:
        if repo not in self.server.repos:
            self.fail(404, "RepoNotFound", "Repository not found")
            return None
        files = self.server.files(repo, revision)
        if files is None:
            self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return files

    def describe(self, repo: str, revision: str) -> None:
        files = self.found(repo, revision)
        if files is not None:
            siblings = [{"rfilename": name} for name in files]
            self.reply(200, {"id": repo, "sha": self.server.commit(repo), "siblings": siblings})

    def tree(self, repo: str, revision: str) -> None:
        files = self.found(repo, revision)
        if files is None:
            return
        entries = []
        for name, content in files.items():
            entry = {"type": "file", "path": name, "size": len(content), "oid": git_hash(content)}
            if name.endswith(".safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self.reply(200, entries)

    def file(self, repo: str, revision: str, name: str) -> None:
        files = self.found(repo, revision)
        if files is None:
            return
        if name not in files:
            self.fail(404, "EntryNotFound", "Entry not found")
            return
        content = files[name]
        large = name.endswith(".safetensors")
        etag = hashlib.sha256(content).hexdigest() if large else git_hash(content)
        self.reply(200, content, ETag=f'"{etag}"', X_Repo_Commit=self.server.commit(repo))

    def do_PUT(self):
        digest = self.path.rpartition("/")[2]
        self.server.asked.append(("PUT", "/objects"))
        content = self.body()
        if hashlib.sha256(content).hexdigest() == digest:
            self.server.large[digest] = content
        self.reply(200)

    def do_POST(self):
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.server.asked.append(("POST", path))
        if path == "/api/validate-yaml":
            front = re.match(rb"---\n(.*?\n)---\n", json.loads(body)["content"].encode(), re.DOTALL)
            self.reply(200 if front else 400, {"errors": [] if front else [{"message": "no metadata"}]})
        elif path.endswith("/verify"):
            found = json.loads(body)["oid"] in self.server.large
            self.reply(200 if found else 404)
        elif self.may(TOKEN):
            self.write(path, body)

    def write(self, path: str, body: bytes) -> None:
        hub = self.server
        if path == "/api/repos/create":
            values = json.loads(body)
            repo = f"{values['organization']}/{values['name']}"
            if repo in hub.repos:
                self.reply(409, {"url": f"{hub.url}/{repo}", "error": "You already created this repo"})
                return
            hub.repos[repo] = [{}]
            if values.get("private") or values.get("visibility") == "private":
                hub.private.add(repo)
            self.reply(200, {"url": f"{hub.url}/{repo}"})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            if (now := self.found(*found.groups())) is not None:
                files = [self.upload_mode(each, now) for each in json.loads(body)["files"]]
                self.reply(200, {"files": files})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [self.action(each) for each in json.loads(body)["objects"]]
            self.reply(200, {"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            self.add_commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self.fail(404, "", f"unknown {path}")

    def upload_mode(self, file: dict, now: dict[str, bytes]) -> dict:
        name = file["path"]
        large = name.endswith(".safetensors")
        mode = {"path": name, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if name in now:
            digest = hashlib.sha256(now[name]).hexdigest() if large else git_hash(now[name])
            mode["oid"] = digest
        return mode

    def action(self, each: dict) -> dict:
        if each["oid"] in self.server.large:
            return each
        upload = {"href": f"{self.server.url}/objects/{each['oid']}"}
        verify = {"href": f"{self.server.url}/objects/{each['oid']}/verify"}
        return {**each, "actions": {"upload": upload, "verify": verify}}

    def add_commit(self, repo: str, lines: list[dict]) -> None:
        hub = self.server
        files = dict(hub.repos[repo][-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                hub.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.large[value["oid"]]
        hub.repos[repo].append(files)
        commit = hub.commit(repo)
        self.reply(200, {"commitUrl": f"{hub.url}/{repo}/commit/{commit}", "commitOid": commit})
