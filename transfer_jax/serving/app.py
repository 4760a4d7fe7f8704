"""The HTTP interface of a trained model: `POST /predict`, `GET /health`, `GET /`."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from transfer_jax.data import BadImageError
from transfer_jax.data.pixel_limit import check_pixels
from transfer_jax.runs.trained_model import TrainedModel
from transfer_jax.serving.answers import answer
from transfer_jax.serving.limits import Limits
from transfer_jax.serving.request_batches import RequestBatches
from transfer_jax.serving.uploads import Upload, read_uploads

_LOG = logging.getLogger(__name__)


class ModelApp:
    """The HTTP interface of a trained model, as an ASGI application: `app`.

    Args:
        model: The model.
        batches: The queue that computes its outputs.
        limits: The limits of requests.
        threads: Number of threads that decode images.
    """

    def __init__(
        self, model: TrainedModel, batches: RequestBatches, limits: Limits, *, threads: int = 2
    ) -> None:
        self._model, self._batches, self._limits = model, batches, limits
        self._threads = ThreadPoolExecutor(threads, "decode")
        self._pending = self._answered = self._refused = 0
        self.app = Starlette(
            routes=[
                Route("/", self._describe),
                Route("/health", self._health),
                Route("/predict", self._predict, methods=["POST"]),
            ],
            exception_handlers={HTTPException: _http_error, Exception: _server_error},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncGenerator[None]:
        self._batches.start()
        yield
        await self._batches.stop()
        self._threads.shutdown()

    async def _describe(self, request: Request) -> JSONResponse:
        saved, limits = self._model.saved, self._limits
        return JSONResponse(
            {
                "model": saved.model,
                "task": saved.task.kind,
                "names": saved.task.names,
                "image_size": saved.preprocessing.image_size,
                "batch_sizes": self._batches.sizes,
                "limits": {"megabytes": limits.body_bytes / 1e6, "megapixels": limits.pixels / 1e6},
                "use": "POST an image file, or a form of image files, to /predict?top=5",
            }
        )

    async def _health(self, request: Request) -> JSONResponse:
        counts = {"waiting": self._pending, "answered": self._answered, "refused": self._refused}
        counts["batches"] = self._batches.computed
        return JSONResponse({"status": "ok", "model": self._model.saved.model, **counts})

    async def _predict(self, request: Request) -> JSONResponse:
        top = _top(request)
        with self._admitted(1):
            uploads = await read_uploads(request, self._limits)
            with self._admitted(len(uploads) - 1):
                rows = await self._outputs(uploads)
        self._answered += len(uploads)
        answers = [answer(self._model.task, row, top) for row in self._model.task.predictions(rows)]
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            named = [{"file": upload.name, **each} for upload, each in zip(uploads, answers, strict=True)]
            return JSONResponse({"predictions": named})
        return JSONResponse(answers[0])

    @contextlib.contextmanager
    def _admitted(self, images: int) -> Iterator[None]:
        """Counts images as pending.

        Raises:
            HTTPException: 503 if too many are.
        """
        if self._pending + images > self._limits.images:
            self._refused += images
            raise HTTPException(
                503,
                f"{self._limits.images} images are waiting already; try again",
                headers={"Retry-After": "1"},
            )
        self._pending += images
        try:
            yield
        finally:
            self._pending -= images

    async def _outputs(self, uploads: list[Upload]) -> np.ndarray:
        """Returns the outputs of images, `(images, outputs)`; raises the error 400 of a bad image."""
        loop = asyncio.get_running_loop()
        try:
            decoded = await asyncio.gather(
                *(loop.run_in_executor(self._threads, self._pixels, upload) for upload in uploads)
            )
        except BadImageError as error:
            raise HTTPException(400, str(error)) from None
        return np.stack(await asyncio.gather(*map(self._batches.outputs, decoded)))

    def _pixels(self, upload: Upload) -> np.ndarray:
        check_pixels(upload.content, upload.name, self._limits.pixels)
        return self._model.pixels(upload.content, upload.name)


def _top(request: Request) -> int:
    text = request.query_params.get("top", "5")
    if not text.isdecimal():
        raise HTTPException(400, f"top must be a number of classes, or 0 for all, got {text!r}")
    return int(text)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code in (404, 405):
        text = f"no {request.method} {request.url.path} here; POST images to /predict, GET /health or /"
    else:
        text = error.detail
    return JSONResponse({"error": text}, error.status_code, headers=error.headers)


async def _server_error(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    return JSONResponse({"error": "the server failed; its log has the reason"}, 500)
