"""The commands on schedules: `transfer-jax plan | find-rate`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType

from transfer_jax.commands.config_options import Config, Given, default_workdir, resolved_run
from transfer_jax.counted import counted
from transfer_jax.extras import optional
from transfer_jax.report.console import BARS, OUT, print_line, table
from transfer_jax.report.save_figure import check_suffix

if TYPE_CHECKING:
    from transfer_jax.planning.cost import PhaseCost
    from transfer_jax.planning.plan import Plan
    from transfer_jax.planning.resolved_run import ResolvedRun
    from transfer_jax.planning.topology import PodCost
    from transfer_jax.runs.result import PhaseResult

_FILE_WIDTH = 100
"""Width of a drawn schedule in characters if it is printed to a file or a pipe."""


def plan(
    config: Config,
    blocks: bool = False,
    cost: bool = False,
    exact: bool = False,
    workdir: Path | None = None,
    topology: str | None = None,
    images_per_chip: int | None = None,
    trains: tuple[str, ...] = (),
    largest_batch: bool = False,
    out: Path | None = None,
    given: Given = None,
) -> None:
    """Shows what a schedule trains, when, and at what cost.

    It takes the same configs and options as `train`. No network is run, except with `--cost`.

    Args:
        config: The config.
        blocks: Whether to show a table of all blocks: how many of their parameters train in each phase, and
            their highest learning rate.
        cost: Whether to estimate disk, operations and seconds, and the memory of the phases that are
            compiled: one of the large ones, and small ones. The seconds of the others follow from their
            operations.
        exact: With `--cost`, compiles every phase and runs a few steps of it on a few images. This gives the
            memory of every phase and closer estimates, and takes several times as long.
        workdir: A run of the config; its measured seconds are shown next to the estimates of `--cost`.
        topology: A TPU pod such as `v5e:16x16`: shows a table of what a step of each phase needs of a chip.
            With `--slices 4` there are four of them, and the table shows the exchange between them.
            The step is compiled on this machine. It needs the package `libtpu` (`transfer_jax[pods]`), and
            no TPU.
        images_per_chip: Number of images on a chip in a step on that pod; by default `batch_size` divided by
            the number of chips.
        trains: Selectors to compare on that pod instead of the phases, such as `head 'top(2)' 'all_()'`.
        largest_batch: Whether to look for the largest batch that fits on a chip of that pod, for each phase
            and each value of `remat`: `none`, `dots` and `block`. Some ten steps are compiled for each phase.
        out: A figure to write, `.png` or `.svg`.
        given: The fields that options set.
    """
    if topology:
        from transfer_jax.planning.topology import without_tpu

        without_tpu()
    elif largest_batch:
        raise ValueError("--largest-batch needs a pod; give one, such as --topology v5e:2x2")
    if out is not None:
        check_suffix(out)
    resolved = resolved_run(config, given, workdir or default_workdir(config))
    _show_plan(resolved, blocks, out)
    _show_reads(resolved, topology)
    if topology and largest_batch:
        _show_batches(resolved, topology, trains)
    elif topology:
        _show_pod(resolved, topology, images_per_chip, trains)
    if cost or exact or workdir:
        _show_costs(resolved, workdir, exact)


def find_rate(
    config: Config,
    phase: str | None = None,
    workdir: Path | None = None,
    out: Path | None = None,
    lowest: float = 1e-6,
    highest: float = 1.0,
    given: Given = None,
) -> None:
    """Finds a learning rate for a phase.

    The phase trains with a learning rate that grows step by step, and the loss is recorded. It takes the
    same configs and options as `train`. A run in `workdir` is only read.

    Args:
        config: The config.
        phase: Name of the phase; by default the first.
        workdir: A run that has reached the phase; needed for all phases but the first.
        out: The figure of the curve, `.png` or `.svg`; by default `rates-PHASE.png`.
        lowest: The first learning rate.
        highest: The last learning rate; it stops earlier if the loss diverges.
        given: The fields that options set.
    """
    from transfer_jax.search.rate_finder import find_rate as find
    from transfer_jax.storage.atomic_write import write_text
    from transfer_jax.storage.file_names import file_name

    if out is not None:
        check_suffix(out)
    resolved = resolved_run(config, given, workdir or default_workdir(config))
    curve = find(resolved, phase, workdir=workdir, progress=BARS, lowest=lowest, highest=highest)
    out = out or Path(f"rates-{file_name(curve.phase)}.png")
    marked = {"steepest": curve.steepest, "lowest": curve.lowest}
    with optional(str(out)):
        from transfer_jax.report.rate_figures import draw_rate_curve

        draw_rate_curve(curve.rates, curve.losses, marked, out)
    write_text(out.with_suffix(".json"), curve.to_json())
    rows = [
        ["where the loss falls fastest", f"{curve.steepest:.1e}"],
        ["a tenth of where the loss is lowest", f"{curve.lowest / 10:.1e}"],
    ]
    OUT.print(table(f"Learning rates for {curve.phase}", ("", "rate"), rows))
    print_line(OUT, f"Curve: {out if out.exists() else out.with_suffix('.json')}")


def _show_plan(resolved: "ResolvedRun", blocks: bool, out: Path | None) -> None:
    """Prints what a schedule trains, by phase and, if requested, by block, and draws it."""
    from transfer_jax.planning.plan import plan as plan_run
    from transfer_jax.report.rate_timeline import timeline_text

    found = plan_run(resolved)
    timeline = found.timeline()
    OUT.print(_phases_table(found))
    if blocks:
        OUT.print(_blocks_table(found))
    OUT.print(timeline_text(timeline, OUT.width if OUT.is_terminal else _FILE_WIDTH))
    for parts in found.phases:
        for each in parts.phase.objects:
            if each is parts.phase.shape and not each.is_available:
                print_line(OUT, f"{parts.phase.name}: the rates are without {each}, an object of Python.")
    if out is not None:
        with optional(str(out)):
            from transfer_jax.report.rate_figures import draw_timelines

            draw_timelines({"planned": timeline}, out)
            print_line(OUT, f"Figure: {out}")


def _show_reads(resolved: "ResolvedRun", topology: str | None) -> None:
    """Prints what a host reads from object storage, if the images are there."""
    from transfer_jax.distributed import processes
    from transfer_jax.planning.read_costs import read_costs

    if not resolved.train.cache_bytes:
        return
    hosts = processes.count()
    if topology:
        from transfer_jax.planning.topology import topology_devices

        devices = topology_devices(topology, resolved.config.slices or 1)
        hosts = len({device.process_index for device in devices})
    costs = read_costs(resolved, hosts)
    if not costs:
        return
    part = lambda value: "" if value is None else f"{value:.0%}"  # noqa: E731
    rows = [
        [
            cost.reads,
            f"{cost.images:,}",
            f"{cost.requests:,}",
            f"{cost.bytes / 1e9:,.3g}",
            part(cost.second),
            part(cost.later),
        ]
        for cost in costs
    ]
    columns = ("reads", "images", "requests", "GB", "of it in the cache, second epoch", "later")
    title = f"Reads from object storage, each of {counted(hosts, 'host')}"
    OUT.print(table(title, columns, rows))
    gigabytes = f"{resolved.train.cache_bytes / 1e9:.3g}"
    print_line(OUT, f"The cache has {gigabytes} GB (--object-gigabytes); this is an estimate.")
    for cost in costs:
        if cost.note:
            print_line(OUT, f"{cost.reads}: {cost.note}")


def _show_costs(resolved: "ResolvedRun", workdir: Path | None, exact: bool) -> None:
    """Prints the estimated cost of each phase, and the measured one of the finished phases of a run."""
    from transfer_jax.planning.cost import estimate_costs
    from transfer_jax.runs.checkpointing import finished_phases
    from transfer_jax.runs.load_network import load_network

    costs = estimate_costs(load_network(resolved, Path()), BARS, exact=exact)
    OUT.print(_costs_table(costs))
    estimated = [cost.name for cost in costs if not cost.measured]
    if estimated:
        print_line(
            OUT,
            f"~ {', '.join(estimated)}: estimated from operations and the measured steps of other phases; "
            "not compiled, so the peak is unknown. --exact compiles and times every phase.",
        )
    for cost in costs:
        if cost.boundary is None:
            print_line(OUT, f"{cost.name} trains on images: {cost.reason}")
        if cost.images_read and cost.images_needed and cost.images_read < cost.images_needed:
            print_line(
                OUT,
                f"{cost.name} waits for images: raise --read-processes or --threads if there are more "
                "cores, or cache features",
            )
    if workdir is not None:
        finished = finished_phases(workdir)
        if not finished:
            print_line(OUT, f"No phase is finished in {workdir}")
        else:
            OUT.print(_compared_table(costs, finished))


def _show_pod(resolved: "ResolvedRun", topology: str, images: int | None, train: Sequence[str]) -> None:
    """Prints what a step of each phase needs of a chip of a pod."""
    from transfer_jax.planning.topology import pod_costs

    costs = list(pod_costs(resolved, topology, BARS, images=images, train=train))
    lines: dict[str, Callable[[PodCost], str]] = {
        "trains": lambda cost: cost.train,
        "boundary": lambda cost: cost.boundary or "the images",
        "images a chip": lambda cost: f"{cost.images:,}",
        "memory, GB": lambda cost: f"{cost.memory / 1e9:.2f}",
        "fits": lambda cost: "yes" if cost.fits else "no",
        "of it between steps, GB": lambda cost: f"{cost.arguments / 1e9:.2f}",
        "TFLOP": lambda cost: f"{cost.flops / 1e12:.3g}",
        "HBM traffic, GB": lambda cost: f"{cost.hbm_bytes / 1e9:.3g}",
        "of it compulsory, GB": lambda cost: f"{cost.compulsory_bytes / 1e9:.3g}",
        "MB exchanged": lambda cost: f"{cost.exchanged / 1e6:.3g}",
        "MB to other slices": lambda cost: f"{cost.exchanged_slices / 1e6:.3g}",
        "Mcycles of the compiler": lambda cost: f"{cost.cycles / 1e6:.3g}",
        "kernel Mcycles": lambda cost: f"{cost.kernel_cycles / 1e6:.3g}",
        "without cycles": lambda cost: cost.left_out,
        "bound, ms": lambda cost: f"{cost.bound_seconds * 1e3:.3g}",
        "bound by": lambda cost: cost.bound,
        "estimate, ms": lambda cost: f"{cost.estimated_seconds * 1e3:.3g}",
        "images/s a chip, estimate": lambda cost: f"{cost.images / cost.estimated_seconds:,.0f}",
        "compiled in, s": lambda cost: f"{cost.compile_seconds:.0f}",
    }
    slices = costs[0].slices
    if slices == 1:
        del lines["MB to other slices"]
    if not any(cost.kernels for cost in costs):
        del lines["kernel Mcycles"]
    rows = [[name, *(shown(cost) for cost in costs)] for name, shown in lines.items()]
    each = f"{slices} slices of {topology}" if slices > 1 else topology
    title = f"A step on a chip of {each}, {counted(costs[0].chips, 'chip')}"
    OUT.print(table(title, ("", *(cost.name for cost in costs)), rows))
    print_line(OUT, "bound: no step with these operations, arrays and exchange is faster on this chip.")
    print_line(OUT, "estimate: this program, by the cycles that the compiler estimates; nothing was run.")
    for cost in costs:
        if cost.reason:
            print_line(OUT, f"{cost.name} does not fit: {cost.reason}")


def _show_batches(resolved: "ResolvedRun", topology: str, train: Sequence[str]) -> None:
    """Prints the largest batch of each phase that fits on a chip of a pod, for each value of `remat`."""
    from transfer_jax.planning.batch_search import batch_search

    found = list(batch_search(resolved, topology, BARS, train=train))
    fastest = {
        name: min(
            (cost for _, cost in found if cost.name == name and cost.fits),
            key=lambda cost: cost.estimated_seconds / cost.images,
            default=None,
        )
        for name in {cost.name for _, cost in found}
    }
    rows = [
        [
            cost.name + (" *" if cost is fastest[cost.name] else ""),
            policy,
            f"{cost.images:,}" if cost.fits else f"{cost.images:,} do not fit",
            f"{cost.memory / 1e9:.2f}",
            f"{cost.estimated_seconds * 1e3:.3g}",
            f"{cost.images / cost.estimated_seconds:,.0f}",
        ]
        for policy, cost in found
    ]
    columns = ("phase", "remat", "images a chip", "memory, GB", "estimate, ms", "images/s a chip, estimate")
    OUT.print(table(f"The largest batch that fits on a chip of {topology}", columns, rows))
    print_line(OUT, "*: the most images per second of the phase, by the cycles that the compiler estimates.")


def _phases_table(found: "Plan") -> RenderableType:
    """Returns a table with a row for each phase."""
    rows = []
    for index, parts in enumerate(found.phases):
        of_blocks = {block: found.of_block(index, block) for block in found.blocks}
        trainable = sum(block.trainable for block in of_blocks.values())
        rate = max(block.rate for block in of_blocks.values())
        rows.append([parts.phase.name, parts.phase.train, f"{parts.phase.epochs}", f"{parts.steps:,}"])
        rows[-1] += [f"{trainable:,}", parts.boundary or "the images", f"{rate:.2g}"]
    columns = ("phase", "trains", "epochs", "steps", "parameters", "boundary", "highest rate")
    return table("Plan", columns, rows)


def _costs_table(costs: "Sequence[PhaseCost]") -> RenderableType:
    """Returns a table with a column for each phase."""

    def about(cost: "PhaseCost") -> str:
        """Returns a sign before numbers that were not measured."""
        return "" if cost.measured else "~"

    lines: dict[str, Callable[[PhaseCost], str]] = {
        "boundary": lambda cost: cost.boundary or "the images",
        "cache, MB": lambda cost: f"{cost.cache_bytes / 1e6:,.1f}" if cost.boundary else "",
        "kept in": lambda cost: cost.tier or "",
        "pays after, epochs": lambda cost: "" if cost.break_even is None else f"{cost.break_even:.1f}",
        "GFLOP a step": lambda cost: f"{cost.step_flops / 1e9:,.3g}",
        "GB a step": lambda cost: "?" if cost.step_bytes is None else f"{cost.step_bytes / 1e9:,.3g}",
        "peak, MB": lambda cost: "?" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:,.0f}",
        "programs": lambda cost: f"{cost.programs}",
        "compile, s": lambda cost: f"{about(cost)}{cost.compile_seconds:,.1f}",
        "extract, s": lambda cost: f"{cost.extract_seconds:,.1f}",
        "train, s": lambda cost: f"{about(cost)}{cost.train_seconds:,.1f}",
        "images/s, steps": lambda cost: (
            "" if cost.images_needed is None else f"{about(cost)}{cost.images_needed:,.0f}"
        ),
        "images/s, reading": lambda cost: "" if cost.images_read is None else f"{cost.images_read:,.0f}",
        "validations": lambda cost: f"{cost.validations}",
        "validate, s": lambda cost: f"{cost.validate_seconds:,.1f}",
    }
    rows = [[name, *(shown(cost) for cost in costs)] for name, shown in lines.items()]
    return table("Cost", ("", *(cost.name for cost in costs)), rows)


def _compared_table(costs: "Sequence[PhaseCost]", finished: "Sequence[PhaseResult]") -> RenderableType:
    """Returns a table of the estimated and the measured seconds."""
    rows = []
    for cost, result in zip(costs, finished, strict=False):
        estimated = cost.extract_seconds + cost.train_seconds
        measured = result.extract_seconds + result.train_seconds
        rows.append([cost.name, f"{estimated:,.1f}", f"{measured:,.1f}", f"{estimated / measured:.2f}"])
    columns = ("phase", "extract and train s, estimated", "measured", "ratio")
    return table("Estimated and measured", columns, rows)


def _blocks_table(found: "Plan") -> RenderableType:
    """Returns a table with a row for each block, the head on top."""
    rows = []
    for block in reversed(found.blocks):
        cells = [found.of_block(index, block) for index in range(len(found.phases))]
        shown = [f"{cell.trainable:,} at {cell.rate:.2g}" if cell.trainable else "frozen" for cell in cells]
        rows.append([block, f"{found.parameters(block):,}", *shown])
    return table("Blocks", ("block", "parameters", *(parts.phase.name for parts in found.phases)), rows)
