"""Are the numbers of this accelerator right, and how fast are its training steps? In at most eight minutes.

    python benchmarks/accelerator.py --out accelerator.json
    python benchmarks/accelerator.py --quick          # tiny sizes, on any machine

1. The loss and the gradients of our steps, in float32 (products in full precision) and in bfloat16, against
   the same step in float64 on the host's CPU: the root mean square of the error divided by that of the
   gradients. An error above the limit ends the program with the exit code 1.
2. Steps of ViT-B/16, ResNet-50, EfficientNet-Lite0 and ViT-L/16 in bfloat16: the head, the last stage, both
   on cached features, and everything. They run through `transfer_jax.runs.bench`, as in `transfer-jax bench`.
3. The same steps in PyTorch, where torch and timm are installed: torch.compile, fused attention (SDPA),
   channels_last, autocast to bfloat16, fused AdamW; BatchNorm in inference mode, as ours.

Rows that do not fit into `--minutes` are left out, and the program prints how many.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.data import from_arrays
from transfer_jax.planning.peaks import Peak
from transfer_jax.report.console import BARS, OUT, table
from transfer_jax.runs.bench import Bench
from transfer_jax.runs.environment import environment
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_step import make_phase_gradients
from transfer_jax.training.phase_trainer import fresh_state

CLASSES = 1000
LAST_STAGE = {
    "vit_base_patch16_224": ("blocks.9", ("blocks.9", "blocks.10", "blocks.11", "norm", "head")),
    "resnet50": ("layer4.0", ("layer4", "fc")),
    "efficientnet_lite0": ("blocks.15", ("blocks.6", "conv_head", "bn2", "classifier")),
    "vit_large_patch16_224": ("blocks.18", (*(f"blocks.{index}" for index in range(18, 24)), "norm", "head")),
    "vit_tiny_patch16_224": ("blocks.9", ("blocks.9", "blocks.10", "blocks.11", "norm", "head")),
}
"""The first block of each last stage, or of a transformer's last quarter, and its modules in timm."""
CHECKED = ("vit_tiny_patch16_224", "efficientnet_lite0")
LIMITS = {"float32": 1e-3, "bfloat16": 0.1}
"""The largest relative errors of gradients."""
QUICK = ("vit_tiny_patch16_224", "efficientnet_lite0")


def selectors(name: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Returns our selector for each part that trains, and the prefixes of the same parameters in timm."""
    first, modules = LAST_STAGE[name]
    return {
        "head": ("head", modules[-1:]),
        "last stage": (f"from_({first!r})", modules),
        "everything": ("all_()", ("",)),
    }


def relative_error(model: str, trains: str, precision: str, size: int) -> float:
    """Returns the error of the gradients of a step on this device, compared with float64 on the CPU."""
    config = TrainConfig(
        images="none",
        model=model,
        weights="none",
        image_size=size,
        precision=precision,  # pyright: ignore[reportArgumentType]
        strategy="jit",
        batch_size=2,
        schedule=Schedule((Phase(name="step", train=trains, epochs=1, learning_rate=1e-3, cache="off"),)),
    )
    dataset = from_arrays(np.zeros((16, 1, 1), np.uint8), np.arange(16) % 2, ("a", "b"))
    run = load_network(resolve(config, dataset=dataset), Path())
    parts = run.parts(0)
    programs = PhasePrograms(run, parts)
    state, frozen = fresh_state(run, parts, run.arrays)
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (2, size, size, 3), np.uint8), "label": np.array([0, 1], np.int32)}
    arguments = jax.device_get((state.trainable, state.model_state, frozen, batch))
    with jax.default_matmul_precision("highest" if precision == "float32" else "default"):
        gradients = make_phase_gradients(programs.forward, programs.options)
        found = jax.jit(gradients)(*arguments, jax.random.key(0))[0][0]
    exact_forward = dataclasses.replace(programs.forward, dtype=jnp.float64, prefix_dtype=jnp.float64)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        gradients = make_phase_gradients(exact_forward, programs.options)
        exact = jax.jit(gradients)(*arguments, jax.random.key(0))[0][0]
    error, whole = 0.0, 0.0
    for path, value in jax.device_get(exact).items():
        wanted = np.asarray(value, np.float64)
        error += float(np.sum((np.asarray(found[path], np.float64) - wanted) ** 2))
        whole += float(np.sum(wanted**2))
    return math.sqrt(error / whole)


def checks(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each network, part and precision."""
    rows = []
    for model in CHECKED[:1] if quick else CHECKED:
        for trains, (selector, _) in selectors(model).items():
            if trains == "last stage":
                continue
            for precision, limit in LIMITS.items():
                error = relative_error(model, selector, precision, 64)
                rows.append(
                    {
                        "network": model,
                        "trains": trains,
                        "precision": precision,
                        "error": error,
                        "limit": limit,
                        "passes": error <= limit,
                    }
                )
    return rows


def our_rows(model: str, options: argparse.Namespace, peak: Peak) -> Iterator[dict[str, Any]]:
    """Yields our steps of a network."""
    found = selectors(model)
    bench = Bench(
        models=(model,),
        trains=tuple(selector for selector, _ in found.values()),
        batch_sizes=(options.batch,),
        cached=True,
        precision=options.precision,
        image_size=options.size,
        classes=CLASSES,
        seconds=options.seconds,
    )
    names = {selector: trains for trains, (selector, _) in found.items()}
    for row in bench.rows(peak):
        given = "features" if row.boundary else "images"
        yield {**row.to_json(), "program": "transfer_jax", "trains": names[row.trains], "on": given}


def torch_rows(model: str, options: argparse.Namespace, peak: Peak, flops: Any) -> Iterator[dict[str, Any]]:
    """Yields PyTorch's steps of a network; their MFU is for the operations of ours."""
    import torch

    for trains, (_, modules) in selectors(model).items():
        row: dict[str, Any] = {"program": "torch", "model": model, "trains": trains, "on": "images"}
        try:
            times, compile_seconds, memory, what = _torch_times(model, modules, options)
        except torch.cuda.OutOfMemoryError:
            yield {**row, "batch_size": options.batch, "error": "out of memory"}
            continue
        low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
        needed = flops.get(trains)
        yield {
            **row,
            "program": what,
            "batch_size": options.batch,
            "images_per_second": options.batch / median,
            "step_seconds": float(median),
            "spread_seconds": float(high - low) / 2,
            "compile_seconds": compile_seconds,
            "mfu": None if needed is None else needed / float(median) / peak.flops,
            "peak_bytes": memory,
            "error": "",
        }


def _torch_times(
    name: str, modules: tuple[str, ...], options: argparse.Namespace
) -> tuple[list[float], float, int | None, str]:
    """Returns the seconds of PyTorch's steps, of the first one, its peak memory, and what it is."""
    import timm
    import torch

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    sized = {"img_size": options.size} if name.startswith("vit") else {}
    network = timm.create_model(name if "lite" not in name else f"tf_{name}", num_classes=CLASSES, **sized)
    network = network.eval().to(device, memory_format=torch.channels_last)  # pyright: ignore
    for path, parameter in network.named_parameters():
        parameter.requires_grad_(path.startswith(modules))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=cuda)
    model: Any = torch.compile(network) if cuda else network
    images = torch.rand(options.batch, 3, options.size, options.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (options.batch,), device=device)
    half = options.precision == "bfloat16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def timed(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - started) / steps

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    compile_seconds, one = timed(1), timed(2)
    steps, times = max(1, math.ceil(0.1 / one)), []
    while len(times) < 5 or (sum(times) * steps < options.seconds and len(times) < 200):
        times.append(timed(steps))
    memory = torch.cuda.max_memory_allocated() if cuda else None
    return times, compile_seconds, memory, "torch, compiled" if cuda else "torch, eager"


def torch_is_there() -> bool:
    """Returns True if the peer can run: torch and timm are installed, and torch has our kind of device."""
    try:
        import timm  # noqa: F401
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available() == (jax.default_backend() == "gpu")


def timings(options: argparse.Namespace, peak: Peak, deadline: float) -> tuple[list[dict[str, Any]], int]:
    """Returns the rows of all networks, and the number of programs that there was no time for."""
    rows: list[dict[str, Any]] = []
    left_out = 0
    peer = torch_is_there()
    for model in options.models:
        flops: dict[str, float] = {}
        programs: list[tuple[Callable[[], Iterator[dict[str, Any]]], int]] = [
            (lambda model=model: our_rows(model, options, peak), 5)
        ]
        if peer:
            programs.append((lambda model=model, flops=flops: torch_rows(model, options, peak, flops), 3))
        for program, count in programs:
            done = 0
            if time.monotonic() < deadline:
                for row in program():
                    rows.append(row)
                    done += 1
                    BARS.advance(1)
                    if row["program"] == "transfer_jax" and row["on"] == "images" and not row["error"]:
                        flops[row["trains"]] = row["flops"]
                    if time.monotonic() > deadline:
                        break
            left_out += count - done
    return rows, left_out


def errors(row: dict[str, Any]) -> tuple[float, float]:
    """Returns the error of a check and its limit."""
    return row["error"], row["limit"]


def shown(row: dict[str, Any]) -> list[str]:
    """Returns the cells of a row of times."""
    if row["error"]:
        return [row["model"], row["program"], row["trains"], row["on"], row["error"], "", "", "", ""]
    memory, mfu = row["peak_bytes"], row["mfu"]
    return [
        row["model"],
        row["program"],
        row["trains"],
        row["on"],
        f"{row['images_per_second']:,.4g}",
        f"{row['step_seconds'] * 1e3:.4g} ± {row['spread_seconds'] * 1e3:.2g}",
        "" if mfu is None else f"{mfu:.1%}",
        "" if memory is None else f"{memory / 1e9:.2f}",
        f"{row['compile_seconds']:.1f}",
    ]


def main() -> int:
    """Reads the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=LAST_STAGE, help="networks to time")
    parser.add_argument("--batch", type=int, help="images of a step; by default 128, or 2 with --quick")
    parser.add_argument("--size", type=int, help="side of the images; by default 224, or 64 with --quick")
    parser.add_argument("--seconds", type=float, help="seconds of steps to time in each row")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--minutes", type=float, default=8.0, help="start no more programs after that")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the program on any machine")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    quick = options.quick
    options.models = options.models or (QUICK if quick else list(LAST_STAGE)[:4])
    options.batch = options.batch or (2 if quick else 128)
    options.size = options.size or (64 if quick else 224)
    options.seconds = options.seconds or (0.1 if quick else 2.0)
    checked = checks(quick)
    OUT.print(
        table(
            "Gradients, compared with float64",
            ("network", "trains", "precision", "relative error", "limit"),
            [
                [
                    row["network"],
                    row["trains"],
                    row["precision"],
                    f"{row['error']:.1e}",
                    f"{row['limit']:.0e}",
                ]
                for row in checked
            ],
        )
    )
    peak = Bench(models=("none",), precision=options.precision).peak()
    BARS.start("timing steps", len(options.models) * (8 if torch_is_there() else 5))
    rows, left_out = timings(options, peak, deadline)
    BARS.finish()
    columns = ("network", "program", "trains", "on", "images/s", "step, ms", "MFU", "peak, GB", "compile, s")
    title = f"Training steps, {options.precision}, {options.batch} images of {options.size} pixels"
    OUT.print(table(title, columns, list(map(shown, rows))))
    about = environment()
    devices = ", ".join(f"{each['count']} x {each['kind']}" for each in about["devices"])
    OUT.print(
        f"jax {about['versions']['jax']}, Python {about['python']}; {devices}; peak of a device "
        f"{peak.flops / 1e12:.3g} TFLOP/s ({peak.source})"
    )
    if left_out:
        OUT.print(f"{left_out} programs left out: --minutes {options.minutes:g} are over")
    if options.out is not None:
        content = {**about, "peak": dataclasses.asdict(peak), "checks": checked, "rows": rows}
        write_text(options.out, json.dumps({**content, "left_out": left_out}, indent=1))
    return 0 if all(row["passes"] for row in checked) else 1


if __name__ == "__main__":
    sys.exit(main())
