"""Do networks compute the same as ONNX programs?

    python benchmarks/onnx_parity.py --out onnx.json

Exports the smallest network of every family (others with `--match`) with random parameters and statistics,
checks the file, and runs it with onnxruntime for one image and for five. The error is the largest
difference of the logits from ours, relative to the largest logit. Each network has its own process.
"""

import argparse
import datetime
import fnmatch
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
from contest import print_rows, write_report

from transfer_jax.models import create_model, model_names
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.models.registry import variant_of
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.export import export_model
from transfer_jax.weights.saved_model import SavedModel

LIMIT = 1e-4
SMALLEST = (
    *("vgg11", "resnet18", "keras_resnet50", "resnetv2_50x1_bit", "resnetv2_50", "regnet_y_400mf"),
    *("densenet121", "squeezenet1_1", "inception_v3", "xception"),
    *("mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "tf_efficientnet_b0", "efficientnet_lite0"),
    *("convnext_tiny", "convnextv2_atto", "vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2"),
    *("vit_base_patch32_clip_224", "vit_base_patch16_siglip_224", "swin_tiny_patch4_window7_224"),
    "mixer_s32_224",
)


def row(name: str) -> dict[str, Any]:
    """Returns the results of the export of a network."""
    network = create_model(name, 5, abstract_backbone=True)
    network.eval()
    graphdef, params, stats = split(network)
    rng = np.random.default_rng(0)
    arrays = {path: _random(rng, array.shape) for path, array in {**params, **stats}.items()}
    preprocessing = variant_of(name).preprocessing
    saved = SavedModel(model=name, task=SingleLabel(tuple("abcde")), preprocessing=preprocessing, hidden=())
    with tempfile.TemporaryDirectory() as folder:
        saved.save(Path(folder, "model"), arrays)
        before, started = _most_memory(), time.perf_counter()
        file = export_model(Path(folder), "onnx", Path(folder, "net.onnx")).file
        seconds, grown, megabytes = (
            time.perf_counter() - started,
            _most_memory() - before,
            file.stat().st_size / 1e6,
        )
        onnx.checker.check_model(file, full_check=True)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        pixels = rng.uniform(0, 255, (5, preprocessing.image_size, preprocessing.image_size, 3)).astype(
            np.float32
        )
        run = jax.jit(lambda x: merge(graphdef, arrays)(preprocessing.normalize(x)))
        expected = np.asarray(run(pixels))
        errors = [_error(session.run(None, {"pixels": pixels[:n]})[0], expected[:n]) for n in (1, 5)]
        return {
            "network": name,
            "error of 1": errors[0],
            "error of 5": errors[1],
            "equal": max(errors) <= LIMIT,
            "export s": seconds,
            "export MB": grown,
            "file MB": megabytes,
            "onnxruntime s": _seconds(lambda: session.run(None, {"pixels": pixels})),
            "jax s": _seconds(lambda: jax.block_until_ready(run(pixels))),
        }


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Returns a kernel that keeps the size of its input, or a scale, bias, mean or variance near 1."""
    if len(shape) < 2:
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    return rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape).astype(np.float32)


def _error(found: Any, wanted: np.ndarray) -> float:
    return float(np.abs(np.asarray(found) - wanted).max() / np.abs(wanted).max())


def _most_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _seconds(call: Any) -> float:
    """Returns the time of the faster of two calls."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--match", help="shell pattern of the networks; default: those of SMALLEST")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    names = fnmatch.filter(model_names(), arguments.match) if arguments.match else SMALLEST
    if not names:
        parser.error(f"--match {arguments.match!r} matches none of {', '.join(model_names())}")
    title = f"Logits of ONNX programs against ours, {datetime.date.today()}"
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for found in pool.imap(row, names, chunksize=1):
            rows.append(found)
            print(found, flush=True)
            if arguments.out:
                write_report(title, rows, arguments.out, packages=("jax", "onnx", "onnxruntime"))
    print_rows(title, rows)
    raise SystemExit(not all(found["equal"] for found in rows))


if __name__ == "__main__":
    main()
