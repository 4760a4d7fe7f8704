"""A small S3 server on this machine, for measurements: buckets are folders, and each answer may come late.

    python benchmarks/s3_server.py FOLDER --port 9000 --latency 0.03

It answers GET with `Range` and `If-Match`, HEAD, PUT, DELETE and ListObjectsV2. `GET /-/counts` returns the
number of requests of each kind, the bytes sent, and the number of GETs of each object since the last such
request.
"""

import argparse
import asyncio
import bisect
import collections
import json
import os
import urllib.parse
from pathlib import Path
from xml.sax.saxutils import escape

_REASONS = {
    200: "OK",
    204: "No Content",
    206: "Partial Content",
    404: "Not Found",
    412: "Precondition Failed",
}


class Server:
    """The state of a server.

    Args:
        root: The folder of the buckets.
        latency: Seconds that each answer takes longer.
    """

    def __init__(self, root: Path, latency: float) -> None:
        self.root, self.latency = root, latency
        self.listings: dict[str, list[tuple[str, int, str]]] = {}
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
                await asyncio.sleep(self.latency)
                status, extra, content = self.answer(method, target, headers, body)
                found = {"Content-Length": str(len(content)), **extra}
                text = "".join(f"{name}: {value}\r\n" for name, value in found.items())
                writer.write(f"HTTP/1.1 {status} {_REASONS[status]}\r\n{text}\r\n".encode())
                if method != "HEAD":
                    writer.write(content)
                    self.sent += len(content)
                await writer.drain()
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
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(
                _unchunked(body) if "aws-chunked" in headers.get("content-encoding", "") else body
            )
            return 200, {"ETag": _etag(file.stat())}, b""
        if method == "DELETE":
            self.listings.clear()
            file.unlink(missing_ok=True)
            return 204, {}, b""
        if not file.is_file():
            return 404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>"
        status = file.stat()
        etag, size = _etag(status), status.st_size
        if headers.get("if-match", etag) != etag:
            return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        common = {"ETag": etag, "Last-Modified": "Sun, 01 Jan 2023 00:00:00 GMT"}
        if method == "HEAD":
            return 200, {**common, "Content-Length": str(size)}, b""
        self.gets[name] += 1
        start, stop, code = 0, size, 200
        if limits := headers.get("range"):
            first, _, last = limits.removeprefix("bytes=").partition("-")
            start, stop, code = int(first), min(int(last) + 1 if last else size, size), 206
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
                    found.append((key, status.st_size, _etag(status)))
            self.listings[bucket] = sorted(found)
        entries, folders = [], {}
        listed = self.listings[bucket]
        for key, size, etag in listed[bisect.bisect_left(listed, (prefix, -1, "")) :]:
            if not key.startswith(prefix):
                break
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
            else:
                entries.append((key, size, etag))
        first, most = int(options.get("continuation-token") or 0), int(options.get("max-keys") or 1000)
        page = entries[first : first + most]
        more = first + most < len(entries)
        parts = ["<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>"]
        parts.append(f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>")
        if more:
            parts.append(f"<NextContinuationToken>{first + most}</NextContinuationToken>")
        for key, size, etag in page:
            parts.append(
                f"<Contents><Key>{escape(key)}</Key><LastModified>2023-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{escape(etag)}</ETag><Size>{size}</Size></Contents>"
            )
        for key in folders if not first else ():
            parts.append(f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>")
        return "".join([*parts, "</ListBucketResult>"]).encode()


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
