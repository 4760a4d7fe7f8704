"""A small S3 server on this machine, for measurements: buckets are folders, and each answer may come late.

    python benchmarks/s3_server.py FOLDER --port 9000 --latency 0.03

It answers GET with `Range` and `If-Match`, HEAD, PUT, DELETE, the deletion of several objects and
ListObjectsV2. `GET /-/counts` returns the number of requests of each kind, the bytes sent, and the number of
GETs of each object since the last such request. Programs start it with `serving`, and may look at each
request and let it fail.
"""

import argparse
import asyncio
import bisect
import collections
import contextlib
import dataclasses
import datetime
import json
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from xml.sax.saxutils import escape, unescape

_REASONS = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    403: "Forbidden",
    404: "Not Found",
    412: "Precondition Failed",
    416: "Requested Range Not Satisfiable",
    500: "Internal Server Error",
    503: "Slow Down",
}
_CODES = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}
"""The names of errors in S3."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """The failure of a request.

    Attributes:
        status: The status of the answer instead of that of the object; 0 answers as usual.
        seconds: Seconds that the answer takes longer.
        sent: Bytes of the content after which the connection ends; None sends all.
    """

    status: int = 0
    seconds: float = 0.0
    sent: int | None = None


Look = Callable[[str, str], Fault | None]
"""Function from the method (`GET`, `LIST`, …) and the name of each request to its failure."""


class Server:
    """The state of a server.

    Args:
        root: The folder of the buckets.
        latency: Seconds that each answer takes longer.

    Attributes:
        look: Called with each request before it is answered; it may be replaced at any time.
    """

    def __init__(self, root: Path, latency: float = 0.0) -> None:
        self.root, self.latency = root, latency
        self.look: Look = lambda method, name: None
        self.listings: dict[str, list[tuple[str, int, str, float]]] = {}
        self.clear()

    def clear(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.gets: collections.Counter[str] = collections.Counter()
        self.sent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of a connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ", 2)
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
                }
                if headers.get("expect"):
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(headers.get("content-length") or 0))
                path, _, query = target.partition("?")
                kind = "LIST" if method == "GET" and "list-type" in query else method
                fault = self.look(kind, urllib.parse.unquote(path).strip("/")) or Fault()
                await asyncio.sleep(self.latency + fault.seconds)
                status, extra, content = (
                    _failed(fault.status) if fault.status else self.answer(method, target, headers, body)
                )
                found = {"Content-Length": str(len(content)), **extra}
                text = "".join(f"{name}: {value}\r\n" for name, value in found.items())
                writer.write(f"HTTP/1.1 {status} {_REASONS[status]}\r\n{text}\r\n".encode())
                if method != "HEAD":
                    content = content[: fault.sent]
                    writer.write(content)
                    self.sent += len(content)
                await writer.drain()
                if fault.sent is not None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Returns status, headers and content."""
        path, _, query = target.partition("?")
        name = urllib.parse.unquote(path).strip("/")
        options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        if name == "-/counts":
            found = {"requests": self.counts, "sent": self.sent, "gets": self.gets}
            content = json.dumps(found).encode()
            self.clear()
            return 200, {}, content
        self.counts[method if "list-type" not in options else "LIST"] += 1
        file = self.root / name
        if method == "GET" and "list-type" in options:
            return 200, {"Content-Type": "application/xml"}, self.listing(name, options)
        if method == "PUT":
            self.listings.clear()
            if "/" not in name:
                file.mkdir(parents=True, exist_ok=True)
                return 200, {}, b""
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_name(f".{file.name}.put")
            unfinished.write_bytes(
                _unchunked(body) if "aws-chunked" in headers.get("content-encoding", "") else body
            )
            unfinished.replace(file)
            return 200, {"ETag": _etag(file.stat())}, b""
        if method == "POST" and "delete" in options:
            self.listings.clear()
            for key in re.findall(r"<Key>(.*?)</Key>", body.decode(), re.DOTALL):
                if (each := self.root / name / unescape(key)).is_file():
                    each.unlink()
            return 200, {"Content-Type": "application/xml"}, b"<DeleteResult></DeleteResult>"
        if method == "DELETE":
            self.listings.clear()
            file.unlink(missing_ok=True)
            return 204, {}, b""
        if not file.is_file():
            return _failed(404)
        status = file.stat()
        etag, size = _etag(status), status.st_size
        if headers.get("if-match", etag) != etag:
            return _failed(412)
        common = {"ETag": etag, "Last-Modified": formatdate(status.st_mtime, usegmt=True)}
        if method == "HEAD":
            return 200, {**common, "Content-Length": str(size)}, b""
        self.gets[name] += 1
        start, stop, code = 0, size, 200
        if limits := headers.get("range"):
            first, _, last = limits.removeprefix("bytes=").partition("-")
            start, stop, code = int(first), min(int(last) + 1 if last else size, size), 206
            if start >= size:
                return _failed(416)
            common["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        with file.open("rb") as opened:
            opened.seek(start)
            return code, common, opened.read(stop - start)

    def listing(self, bucket: str, options: dict[str, str]) -> bytes:
        """Returns a page of a list of objects."""
        prefix, delimiter = options.get("prefix", ""), options.get("delimiter", "")
        if bucket not in self.listings:
            found = []
            for folder, _, names in os.walk(self.root / bucket):
                below = os.path.relpath(folder, self.root / bucket)
                for each in names:
                    status = os.stat(os.path.join(folder, each))
                    key = each if below == "." else f"{below}/{each}"
                    found.append((key, status.st_size, _etag(status), status.st_mtime))
            self.listings[bucket] = sorted(found)
        entries, folders = [], {}
        listed = self.listings[bucket]
        for key, size, etag, at in listed[bisect.bisect_left(listed, (prefix, -1, "", 0.0)) :]:
            if not key.startswith(prefix):
                break
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
            else:
                entries.append((key, size, etag, at))
        first, most = int(options.get("continuation-token") or 0), int(options.get("max-keys") or 1000)
        page = entries[first : first + most]
        more = first + most < len(entries)
        parts = ["<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"]
        parts.append(f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>")
        if more:
            parts.append(f"<NextContinuationToken>{first + most}</NextContinuationToken>")
        for key, size, etag, at in page:
            date = datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            parts.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>{date}</LastModified>"
                f"<ETag>{escape(etag)}</ETag><Size>{size}</Size></Contents>"
            )
        for key in folders if not first else ():
            parts.append(f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>")
        return "".join([*parts, "</ListBucketResult>"]).encode()


def _failed(status: int) -> tuple[int, dict[str, str], bytes]:
    code = _CODES.get(status, "SlowDown" if status == 503 else "InternalError")
    text = f"<Error><Code>{code}</Code><Message>{_REASONS[status]}</Message></Error>"
    return status, {"Content-Type": "application/xml"}, text.encode()


def _etag(status: os.stat_result) -> str:
    return f'"{status.st_size:x}{status.st_mtime_ns:x}"'


def _unchunked(body: bytes) -> bytes:
    """Returns the content of a body in `aws-chunked` encoding."""
    content, place = b"", 0
    while place < len(body):
        end = body.index(b"\r\n", place)
        size = int(body[place:end].partition(b";")[0], 16)
        if not size:
            break
        content += body[end + 2 : end + 2 + size]
        place = end + 4 + size
    return content


@contextlib.contextmanager
def serving(server: Server) -> Iterator[int]:
    """Runs a server in a thread of this process, and yields its port."""
    loop, port = asyncio.new_event_loop(), 0
    started, ended = threading.Event(), asyncio.Event()

    async def listen() -> None:
        nonlocal port
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024)
        port = listening.sockets[0].getsockname()[1]
        started.set()
        await ended.wait()
        listening.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # Open connections.
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    thread = threading.Thread(target=lambda: loop.run_until_complete(listen()), daemon=True)
    thread.start()
    started.wait()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


async def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--latency", type=float, default=0.03)
    options = parser.parse_args()
    server = Server(options.folder, options.latency)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", options.port, backlog=1024)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
