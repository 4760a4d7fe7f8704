"""The images in the body of a request: a file as it is, or the files of a form."""

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from transfer_jax.serving.limits import Limits

_NO_IMAGES = ("application/json", "text/")
"""Types of bodies that are refused; curl calls a file `application/x-www-form-urlencoded`."""


class Upload(NamedTuple):
    """An image file."""

    name: str
    content: bytes


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """Returns the image files of a request.

    Raises:
        HTTPException: 400 if there is none or the form is malformed, 408 if the client is slow, 413 if the
            body is too large, 415 if its type is not that of an image.
    """
    kind = request.headers.get("content-type", "").lower()
    if kind.startswith(_NO_IMAGES):
        raise HTTPException(415, f"the body is {kind}; send an image file, or a form of image files")
    body = await _read_body(request, limits)
    if kind.startswith("multipart/form-data"):
        return await _files_of_form(request, body, limits)
    if not body:
        raise HTTPException(400, "the body is empty; send an image file, or a form of image files")
    return [Upload("image", body)]


async def _read_body(request: Request, limits: Limits) -> bytes:
    too_large = HTTPException(
        413, f"the body is larger than {limits.body_bytes / 1e6:g} MB; send a smaller image, or fewer"
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.body_bytes:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {limits.seconds:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client disconnected") from None
    return b"".join(chunks)


async def _files_of_form(request: Request, body: bytes, limits: Limits) -> list[Upload]:
    async def stream() -> AsyncGenerator[bytes]:
        yield body
        yield b""

    try:
        parser = MultiPartParser(request.headers, stream(), max_files=limits.images, max_fields=limits.images)
        form = await parser.parse()
    except (MultiPartException, ValueError) as error:
        raise HTTPException(400, f"the form is malformed: {error}") from None
    try:
        files = [each for _, each in form.multi_items() if isinstance(each, UploadFile)]
        found = [Upload(each.filename or "image", await each.read()) for each in files]
    finally:
        await form.close()
    if not found:
        raise HTTPException(400, "the form has no file; send image files, as `curl -F image=@photo.jpg`")
    return found
