"""A process that serves a trained model over HTTP until it is stopped."""

import contextlib
import os
import socket
from collections.abc import Callable, Sequence

import numpy as np
import uvicorn

from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.trained_model import TrainedModel
from transfer_jax.serving.app import ModelApp
from transfer_jax.serving.limits import Limits
from transfer_jax.serving.request_batches import RequestBatches

GRACE_SECONDS = 30
"""Seconds that requests in progress have to end after SIGTERM or Ctrl-C."""


def serve(
    model: TrainedModel,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    sizes: Sequence[int] = (1, 4, 16),
    wait: float = 0.005,
    limits: Limits | None = None,
    threads: int = 2,
    progress: Progress | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves a model until SIGTERM or Ctrl-C, and then answers the requests in progress.

    All programs are compiled before the first connection is accepted.

    Args:
        model: The model.
        host: Name or address of the interface; `0.0.0.0` for all.
        port: The port; 0 takes a free one.
        sizes: Sizes of the batches.
        wait: Longest time that an image waits for others, in seconds.
        limits: The limits of requests.
        threads: Number of threads that decode images.
        progress: Receives the number of compiled programs; None reports nothing.
        ready: Called with the address when connections are accepted.

    Raises:
        OSError: If the port is in use or not allowed.
        ValueError: If a size or a limit is out of range.
    """
    batches = RequestBatches(model.outputs, sizes, wait)
    app = ModelApp(model, batches, limits or Limits(), threads=threads).app
    with contextlib.closing(_bound(host, port)) as bound:
        _compile(model, batches.sizes, progress or Silent())
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=GRACE_SECONDS
        )
        bound.listen(config.backlog)
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{bound.getsockname()[1]}")
        with contextlib.suppress(KeyboardInterrupt):  # Raised again once the server has stopped.
            uvicorn.Server(config).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound and does not listen yet."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError) as error:
        raise OSError(f"invalid address {host}:{port}: {error}") from None
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise OSError(f"{host}:{port} is not available ({error.strerror}); choose another port") from None
    return bound


def _compile(model: TrainedModel, sizes: Sequence[int], progress: Progress) -> None:
    side = model.preprocessing.image_size
    progress.start("compiling batch sizes", len(sizes))
    for size in sizes:
        model.outputs(np.zeros((size, side, side, 3), np.uint8))
        progress.advance(1)
    progress.finish()
