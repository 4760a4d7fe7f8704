"""The command `transfer-jax serve`: a trained model over HTTP."""

from typing import Annotated

import tyro

from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, CONSOLE, OUT, print_line


def serve(
    workdir: Annotated[str, tyro.conf.Positional],
    host: str = "127.0.0.1",
    port: int = 8000,
    batch_sizes: tuple[int, ...] = (1, 4, 16),
    wait: float = 5.0,
    max_megabytes: float = 20.0,
    max_megapixels: float = 50.0,
    queue: int = 64,
    threads: int = 2,
    calibrated: bool = False,
) -> None:
    """Serves a trained model over HTTP.

    `POST /predict` takes an image file, or a form of image files; `GET /health` is for load balancers, and
    `GET /` describes the model. Images of different requests are computed together. SIGTERM and Ctrl-C stop
    the server after it has answered the requests in progress.

    Args:
        workdir: Folder of a finished run, or `hf://OWNER/REPO`.
        host: Name or address of the interface; `0.0.0.0` for all.
        port: The port; 0 takes a free one, which is printed.
        batch_sizes: Sizes of the batches; each is a program that is compiled at the start.
        wait: Milliseconds that an image waits for others.
        max_megabytes: Largest body of a request, in megabytes.
        max_megapixels: Largest image, in megapixels.
        queue: Largest number of images that wait or are computed; further ones are refused with 503.
        threads: Number of threads that decode images.
        calibrated: Whether to divide the logits by the temperature that the validation images of the run
            chose.
    """
    from transfer_jax.extras import require

    require("starlette", "uvicorn", "python_multipart")

    from transfer_jax.runs.trained_model import from_pretrained
    from transfer_jax.serving.limits import Limits
    from transfer_jax.serving.server import serve as serve_model

    limits = Limits(body_bytes=round(max_megabytes * 1e6), pixels=round(max_megapixels * 1e6), images=queue)
    model = from_pretrained(workdir, calibrated=calibrated)
    names = {"regression": ("quantity", "quantities"), "multi_label": ("label",)}
    outputs = counted(len(model.task.names), *names.get(model.task.kind, ("class",)))
    described = f"{model.saved.model}, {outputs}"

    def ready(address: str) -> None:
        print_line(OUT, f"Serving {workdir} ({described}) on {address}")
        print_line(OUT, f"Try: curl --data-binary @photo.jpg {address}/predict")

    serve_model(
        model,
        host=host,
        port=port,
        sizes=batch_sizes,
        wait=wait / 1000,
        limits=limits,
        threads=threads,
        progress=BARS,
        ready=ready,
    )
    print_line(CONSOLE, "Stopped; all requests are answered.")
