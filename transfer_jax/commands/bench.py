"""The command `transfer-jax bench`, which times training steps on this machine."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from transfer_jax.commands.output_file import check_output_file
from transfer_jax.config.compute_config import PrefixPrecision
from transfer_jax.report.console import BARS, CONSOLE, OUT, print_line, table

if TYPE_CHECKING:
    from transfer_jax.planning.peaks import Peak
    from transfer_jax.runs.bench import BenchRow

_INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def bench(
    models: Annotated[tuple[str, ...], tyro.conf.Positional],
    trains: tuple[str, ...] = ("head", "top(2)", "all_()"),
    batch_sizes: tuple[int, ...] = (),
    cached: bool = False,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    prefix_precision: PrefixPrecision = "auto",
    image_size: int | None = None,
    classes: int = 1000,
    images: str | None = None,
    seconds: float = 2.0,
    out: Path | None = None,
) -> int:
    """Measures the speed of training steps on this machine, for each choice of what trains.

    The steps are those that `train` compiles, of networks with random weights on random images, on whatever
    devices JAX finds. A batch is on the devices before its step, so the speed is that of a run that never
    waits for images; --images measures how fast yours are read. MFU is the fraction of the peak speed of the
    devices that a step uses for the products and convolutions that it needs. Ctrl-C keeps the rows that are
    finished.

    Args:
        models: Names of networks, as `transfer-jax models` lists them.
        trains: Selectors of what trains: each is a row. `head` trains the new classifier, `top(2)` also the
            last two blocks, `all_()` everything.
        batch_sizes: Images of a step, on all devices together; by default 32 on a CPU, and 128 for each
            accelerator. A size that does not fit into memory has a row that says so.
        cached: Whether to time the steps on cached features too, which leave out the frozen blocks.
        precision: Precision of the steps; `auto` is bfloat16 on accelerators and float32 on a CPU.
        prefix_precision: Precision of the frozen blocks below the trainable ones, as in `train`.
        image_size: Side of the images in pixels; by default the network's own.
        classes: Number of classes of the head.
        images: Your images, as in `train --images`, to see whether reading them is slower than a step.
        seconds: Seconds of steps to time for each row, after it is compiled.
        out: A file to write, `.json`, with the rows, the versions and the hardware; after each row.
    """
    check_output_file(out, (".json",))

    import jax

    from transfer_jax.runs.bench import Bench, without_compilation_cache
    from transfer_jax.runs.environment import environment
    from transfer_jax.runs.interrupt import Terminated

    on_cpu = jax.default_backend() == "cpu"
    plan = Bench(
        models=models,
        trains=trains,
        batch_sizes=batch_sizes or ((32,) if on_cpu else (128 * jax.device_count(),)),
        cached=cached,
        precision=("float32" if on_cpu else "bfloat16") if precision == "auto" else precision,
        prefix_precision=prefix_precision,
        image_size=image_size,
        classes=classes,
        images=images,
        seconds=seconds,
    )
    rows: list[BenchRow] = []
    stopped = False
    with without_compilation_cache():
        peak = plan.peak()
        about = {"precision": plan.precision, "prefix_precision": plan.prefix_precision, **environment()}
        about["peak"] = {"flops": peak.flops, "source": peak.source}
        try:
            for row in plan.rows(peak, BARS):
                rows.append(row)
                if out is not None:
                    _write(out, about, rows)
        except (KeyboardInterrupt, Terminated):
            stopped = True
    if rows:
        OUT.print(_table(rows))
    print_line(OUT, _hardware(about, peak))
    for row in rows:
        if row.input_bound:
            print_line(
                OUT,
                f"{row.model}, {row.trains}, {row.batch_size}: reading is {row.images_read:,.0f} images/s, "
                "fewer than the step takes; cache features, or raise --threads or --read-processes of train",
            )
    if out is not None and rows:
        print_line(OUT, f"Rows: {out}")
    if stopped:
        print_line(CONSOLE, "Stopped; the rows above are finished ones.")
    return _INTERRUPTED if stopped else 0


def _write(out: Path, about: dict[str, Any], rows: "Sequence[BenchRow]") -> None:
    import json

    from transfer_jax.storage.atomic_write import write_text

    write_text(out, json.dumps({**about, "rows": [row.to_json() for row in rows]}, indent=1))


def _table(rows: "Sequence[BenchRow]") -> Any:
    """Returns the table of the rows; columns that are empty are left out."""
    columns: dict[str, Callable[[BenchRow], str]] = {
        "network": lambda row: row.model,
        "trains": lambda row: row.trains,
        "on": lambda row: f"features at {row.boundary}" if row.boundary else "images",
        "batch": lambda row: f"{row.batch_size:,}",
        "images/s": lambda row: row.error or f"{row.images_per_second:,.4g}",
        "step, ms": lambda row: "" if row.error else _milliseconds(row),
        "compile, s": lambda row: "" if row.error else f"{row.compile_seconds:.1f}",
        "GFLOP a step": lambda row: "" if row.error else f"{row.flops / 1e9:,.4g}",
        "MFU": lambda row: "" if row.error else f"{row.mfu:.1%}",
        "peak, GB": lambda row: "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f}",
        "read, images/s": lambda row: "" if row.images_read is None else f"{row.images_read:,.0f}",
        "input-bound": lambda row: {None: "", True: "yes", False: "no"}[row.input_bound],
    }
    cells = {name: [shown(row) for row in rows] for name, shown in columns.items()}
    cells = {name: column for name, column in cells.items() if any(column)}
    return table("Training steps", tuple(cells), list(map(list, zip(*cells.values(), strict=True))))


def _milliseconds(row: "BenchRow") -> str:
    return f"{row.step_seconds * 1e3:.4g} ± {row.spread_seconds * 1e3:.2g}"


def _hardware(about: dict[str, Any], peak: "Peak") -> str:
    """Returns a line that names precision, versions and hardware."""
    versions = ", ".join(
        f"{name} {about['versions'][name]}" for name in ("transfer_jax", "jax", "jaxlib", "flax")
    )
    devices = ", ".join(f"{each['count']} x {each['kind']}" for each in about["devices"])
    prefix = about["prefix_precision"]
    precision = about["precision"] + (f" (frozen blocks {prefix})" if prefix != "auto" else "")
    return (
        f"{precision}; {versions}, Python {about['python']}; {devices}, {about['cores']} CPU cores, "
        f"{about['machine']}; peak of a device {peak.flops / 1e12:,.3g} TFLOP/s ({peak.source})"
    )
