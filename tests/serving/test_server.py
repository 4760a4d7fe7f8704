"""A server in a process of its own, with real requests."""

import contextlib
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from transfer_jax import from_pretrained
from transfer_jax.models import Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.saved_model import SavedModel

pytestmark = pytest.mark.extended
TINY = "vit_nano_patch8_32"
BOUNDARY = "-" * 10 + "x"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    _, params, stats = split(create_model(TINY, 3, seed=1))
    preprocessing = Preprocessing(image_size=32, mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0))
    task = SingleLabel(("ant", "bee", "fly"))
    SavedModel(model=TINY, task=task, preprocessing=preprocessing).save(folder, {**params, **stats})
    return folder


class Client:
    """A client of a server."""

    def __init__(self, process: subprocess.Popen, port: int) -> None:
        self.process, self.port = process, port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            assert response.headers["Content-Type"] == "application/json"
            return response.status, json.loads(response.read())


@contextlib.contextmanager
def serving(model: Path, *options: str) -> Iterator[Client]:
    words = [sys.executable, "-m", "transfer_jax", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, process.communicate()[1]
        yield Client(process, int(found[1]))
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[Client]:
    pytest.importorskip("uvicorn")
    pytest.importorskip("python_multipart")
    options = ("--batch-sizes", "1", "8", "--wait", "50", "--queue", "40", "--max-megabytes", "0.1")
    with serving(model, *options, "--max-megapixels", "0.01") as client:
        yield client


def picture(seed: int, side: int = 40) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def form(*files: tuple[str, bytes]) -> bytes:
    lines = b""
    for name, content in files:
        field = f'Content-Disposition: form-data; name="image"; filename="{name}"'
        lines += f"--{BOUNDARY}\r\n{field}\r\n\r\n".encode() + content + b"\r\n"
    return lines + f"--{BOUNDARY}--\r\n".encode()


FORM = f"multipart/form-data; boundary={BOUNDARY}"


def test_an_image_has_the_prediction_of_the_model(client: Client, model: Path):
    content = picture(0)
    (expected,) = from_pretrained(model).predict([content])
    status, found = client.ask("POST", "/predict", content, Content_Type="image/png")
    assert status == 200
    assert found["predicted"] == ("ant", "bee", "fly")[int(expected.argmax())]
    assert found["probabilities"] == pytest.approx(
        dict(zip(("ant", "bee", "fly"), expected, strict=True)), rel=1e-4
    )
    assert list(found["probabilities"].values()) == sorted(found["probabilities"].values(), reverse=True)
    assert len(client.ask("POST", "/predict?top=1", content)[1]["probabilities"]) == 1


def test_a_form_has_several_images(client: Client):
    files = [(f"{seed}.png", picture(seed)) for seed in range(3)]
    status, found = client.ask("POST", "/predict", form(*files), Content_Type=FORM)
    assert status == 200
    assert [each["file"] for each in found["predictions"]] == ["0.png", "1.png", "2.png"]
    for (_, content), each in zip(files, found["predictions"], strict=True):
        alone = client.ask("POST", "/predict", content)[1]
        assert each["probabilities"] == pytest.approx(alone["probabilities"], rel=1e-4)


def test_images_of_different_requests_are_computed_together(client: Client):
    before = client.ask("GET", "/health")[1]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda seed: client.ask("POST", "/predict", picture(seed)), range(32)))
    after = client.ask("GET", "/health")[1]
    assert [status for status, _ in found] == [200] * 32
    assert after["answered"] - before["answered"] == 32
    assert after["batches"] - before["batches"] <= 16
    assert (after["status"], after["waiting"]) == ("ok", 0)


def test_the_model_is_described(client: Client):
    status, found = client.ask("GET", "/")
    assert status == 200
    assert (found["model"], found["names"], found["batch_sizes"]) == (TINY, ["ant", "bee", "fly"], [1, 8])


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status", "message"),
    [
        ("POST", "/predict", b"hello", "image/png", 400, "image: not an image of a known format"),
        ("POST", "/predict", b"<html></html>", "", 400, "it is a web page"),
        ("POST", "/predict", picture(0)[:300], "", 400, "image: cannot be decoded"),
        ("POST", "/predict", b"", "", 400, "the body is empty"),
        ("POST", "/predict", picture(0, 120), "", 400, "120 x 120 pixels are more than 0.01 megapixels"),
        ("POST", "/predict", b"x" * 100_001, "", 413, "larger than 0.1 MB"),
        ("POST", "/predict", iter([b"x" * 50_000] * 3), "", 413, "larger than 0.1 MB"),
        ("POST", "/predict", b"{}", "application/json", 415, "the body is application/json"),
        ("POST", "/predict?top=many", picture(0), "", 400, "top must be a number"),
        ("POST", "/predict", b"hello", FORM, 400, "the form is malformed"),
        ("POST", "/predict", b"hello", "multipart/form-data", 400, "the form is malformed: Missing boundary"),
        ("POST", "/predict", form(), FORM, 400, "the form has no file"),
        ("POST", "/predict", form(("a.png", picture(0)), ("b.png", b"x")), FORM, 400, "b.png: not an image"),
        ("POST", "/predict", form(*[("a.png", b"")] * 41), FORM, 400, "Too many files"),
        ("GET", "/predict", None, "", 405, "no GET /predict here; POST images to /predict"),
        ("GET", "/docs", None, "", 404, "no GET /docs here"),
    ],
)
def test_errors_say_what_is_wrong(client: Client, method, path, body, kind, status, message):
    headers = {"Content_Type": kind} if kind else {}
    found, answer = client.ask(method, path, body, **headers)
    assert (found, list(answer)) == (status, ["error"])
    assert message in answer["error"]
    assert client.ask("GET", "/health")[1]["waiting"] == 0


def test_a_stop_answers_the_requests_in_progress(model: Path):
    pytest.importorskip("uvicorn")
    pytest.importorskip("python_multipart")
    content = picture(0)
    with serving(model, "--batch-sizes", "2", "--queue", "2") as client:
        many = form(*[("a.png", content)] * 2)
        connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content[:100])
        while client.ask("GET", "/health")[1]["waiting"] == 0:
            time.sleep(0.01)
        status, found = client.ask("POST", "/predict", many, Content_Type=FORM)
        assert (status, found) == (503, {"error": "2 images are waiting already; try again"})
        os.kill(client.process.pid, signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(ConnectionError):
            client.ask("GET", "/health")
        connection.send(content[100:])
        assert connection.getresponse().status == 200
        connection.close()
        assert client.process.wait(60) == 0
        assert client.process.stderr is not None
        assert client.process.stderr.read().endswith("Stopped; all requests are answered.\n")


def test_a_port_in_use_is_an_error(client: Client, model: Path):
    words = [sys.executable, "-m", "transfer_jax", "serve", str(model), "--port", str(client.port)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert f"127.0.0.1:{client.port} is not available (Address already in use)" in done.stderr
