"""Requests to S3 by signed URLs: a third of the CPU time of the same requests through botocore."""

import asyncio
import atexit
import contextlib
import functools
import os
import ssl
from typing import Any

_SECONDS = 3600
"""Seconds for which a URL is valid."""
_CONNECTIONS = 128


async def get_signed(
    system: Any, bucket: str, name: str, headers: dict[str, str], seconds: float
) -> tuple[int, Any, bytes]:
    """Returns status, headers and content of an object or a range of it.

    Args:
        system: The s3fs file system, with its credentials and its endpoint.
        bucket: The bucket.
        name: The name of the object.
        headers: `Range` and `If-Match`.
        seconds: The longest time without an answer.
    """
    import yarl

    await system.set_session()
    client = await system.get_s3(bucket)
    url = await client.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": name}, ExpiresIn=_SECONDS
    )
    session = _session(os.getpid(), seconds)
    async with session.get(yarl.URL(url, encoded=True), headers=headers) as answer:
        return answer.status, answer.headers, await answer.read()


def can_sign(system: Any) -> bool:
    """Returns whether signed URLs do what the file system does: it has no options of its own for requests."""
    options = (getattr(system, "client_kwargs", None) or {}).keys() - {"region_name", "endpoint_url"}
    return not (options or getattr(system, "anon", False) or getattr(system, "req_kw", None))


@functools.cache
def _session(process: int, seconds: float) -> Any:
    """Returns the connections of this process; fsspec has one event loop for each process."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, connect=seconds, sock_read=seconds)
    bundle = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")  # As botocore.
    context = ssl.create_default_context(cafile=bundle) if bundle else True
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context)
    session = aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=True, auto_decompress=False
    )
    atexit.register(_close, session, asyncio.get_running_loop(), process)
    return session


def _close(session: Any, loop: asyncio.AbstractEventLoop, process: int) -> None:
    """Closes the connections at the end of their process."""
    if process == os.getpid() and loop.is_running():
        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(session.close(), loop).result(timeout=2)
