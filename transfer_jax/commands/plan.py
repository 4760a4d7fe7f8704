"""The commands about schedules: `transfer-jax plan | find-rate`."""

from collections.abc import Callable, Sequence
from pathlib import Path

from transfer_jax.commands.config_options import Config, Given, default_workdir, settled
from transfer_jax.planning.cost import PhaseCost, estimate_costs
from transfer_jax.planning.plan import Plan
from transfer_jax.planning.plan import plan as plan_of
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.planning.topology import PodCost, pod_costs, without_tpu
from transfer_jax.report.console import BARS, OUT, table
from transfer_jax.report.save_figure import check_suffix
from transfer_jax.report.timeline import draw_rate_curve, draw_timelines, timeline_text
from transfer_jax.runs.checkpointing import finished_phases
from transfer_jax.runs.prepare import prepare
from transfer_jax.runs.result import PhaseResult
from transfer_jax.search.rate_finder import find_rate as ramp_rates
from transfer_jax.storage.atomic_write import write_text


def plan(
    config: Config,
    blocks: bool = False,
    cost: bool = False,
    workdir: Path | None = None,
    topology: str | None = None,
    images_per_chip: int | None = None,
    trains: tuple[str, ...] = (),
    out: Path | None = None,
    given: Given = None,
) -> None:
    """Show what a schedule will train, when, how fast and at what cost.

    Takes the same configs and options as `train`. Nothing is computed, unless `--cost` asks for it.

    Args:
        config: What would be trained.
        blocks: A table of every block: how much of it trains in each phase, at which highest rate.
        cost: A table of disk, memory, operations and seconds. Each phase is compiled, and takes a few
            steps on a few images.
        workdir: A run of the config, whose seconds are shown beside those that `--cost` foretells.
        topology: A TPU pod such as `v5e:16x16`: a table of what each phase's step needs of a chip of it.
            Compiled for it here; no TPU is needed, but the package `libtpu` (`transfer-jax[pods]`).
        images_per_chip: Images a chip and step on that pod; `batch_size` over all chips, if not given.
        trains: Selectors to compare on that pod instead of the phases, such as `head 'top(2)' 'all_()'`.
        out: A picture to write, `.png` or `.svg`.
        given: The fields that options set.
    """
    resolved = settled(config, given, workdir or default_workdir(config))
    if topology:
        without_tpu()
    _show_plan(resolved, blocks, out)
    if topology:
        _show_pod(resolved, topology, images_per_chip, trains)
    if cost or workdir:
        _show_costs(resolved, workdir)


def find_rate(
    config: Config,
    phase: str | None = None,
    workdir: Path | None = None,
    out: Path | None = None,
    lowest: float = 1e-6,
    highest: float = 1.0,
    given: Given = None,
) -> None:
    """Find a learning rate for a phase: the loss along rates that grow step by step.

    Takes the same configs and options as `train`. A run in `workdir` is only read.

    Args:
        config: What would be trained.
        phase: Name of the phase; the first, if not given.
        workdir: A run that has come to the phase; needed for any but the first.
        out: The picture of the curve, `.png` or `.svg`; `rates-PHASE.png`, if not given.
        lowest: The first rate.
        highest: The last rate; it ends earlier where the loss diverges.
        given: The fields that options set.
    """
    resolved = settled(config, given, workdir or default_workdir(config))
    _show_rates(resolved, phase, workdir, out, lowest, highest)


def _show_plan(resolved: ResolvedRun, blocks: bool, out: Path | None) -> None:
    """Prints what a schedule will do, by phase and, if asked, by block; writes its picture."""
    found = plan_of(resolved)
    timeline = found.timeline()
    if out is not None:
        draw_timelines({"planned": timeline}, out)
    OUT.print(_phases_table(found))
    if blocks:
        OUT.print(_blocks_table(found))
    OUT.print(timeline_text(timeline, OUT.width))
    if out is not None:
        OUT.print(f"The picture: {out}", markup=False)


def _show_costs(resolved: ResolvedRun, workdir: Path | None) -> None:
    """Prints what each phase will cost and, beside that, what the finished ones of a run did cost."""
    costs = estimate_costs(prepare(resolved, Path()), BARS)
    OUT.print(_costs_table(costs))
    for cost in costs:
        if cost.boundary is None:
            OUT.print(f"{cost.name} trains on images: {cost.reason}", markup=False)
    if workdir is not None:
        finished = finished_phases(workdir)
        if not finished:
            OUT.print(f"No phase is finished in {workdir}", markup=False)
        else:
            OUT.print(_compared_table(costs, finished))


def _show_pod(resolved: ResolvedRun, topology: str, images: int | None, train: Sequence[str]) -> None:
    """Prints what the step of each phase needs of a chip of a pod."""
    costs = list(pod_costs(resolved, topology, BARS, images=images, train=train))
    lines: dict[str, Callable[[PodCost], str]] = {
        "trains": lambda cost: cost.train,
        "boundary": lambda cost: cost.boundary or "the images",
        "images a chip": lambda cost: f"{cost.images:,}",
        "HBM, GB": lambda cost: f"{cost.memory / 1e9:.2f}",
        "fits": lambda cost: "yes" if cost.fits else "no",
        "of it stays, GB": lambda cost: f"{cost.arguments / 1e9:.2f}",
        "TFLOP": lambda cost: f"{cost.flops / 1e12:.3g}",
        "GB moved": lambda cost: f"{cost.bytes / 1e9:.3g}",
        "MB exchanged": lambda cost: f"{cost.exchanged / 1e6:.3g}",
        "ms at least": lambda cost: f"{cost.seconds * 1e3:.3g}",
        "bound by": lambda cost: cost.bound,
        "images/s a chip at most": lambda cost: f"{cost.images / cost.seconds:,.0f}",
        "compiled in, s": lambda cost: f"{cost.compile_seconds:.0f}",
    }
    rows = [[name, *(shown(cost) for cost in costs)] for name, shown in lines.items()]
    title = f"A step on a chip of {topology}, {costs[0].chips} chips"
    OUT.print(table(title, ("", *(cost.name for cost in costs)), rows))
    for cost in costs:
        if cost.reason:
            OUT.print(f"{cost.name} does not fit: {cost.reason}", markup=False)


def _show_rates(
    resolved: ResolvedRun,
    phase: str | None,
    workdir: Path | None,
    out: Path | None,
    lowest: float,
    highest: float,
) -> None:
    """Prints which learning rates suit a phase, and writes the curve that says so."""
    if out is not None:
        check_suffix(out)
    curve = ramp_rates(resolved, phase, workdir=workdir, progress=BARS, lowest=lowest, highest=highest)
    out = out or Path(f"rates-{curve.phase}.png")
    draw_rate_curve(curve.rates, curve.losses, {"steepest": curve.steepest, "lowest": curve.lowest}, out)
    write_text(out.with_suffix(".json"), curve.to_json())
    rows = [
        ["where the loss fell fastest", f"{curve.steepest:.1e}"],
        ["a tenth of where it was lowest", f"{curve.lowest / 10:.1e}"],
    ]
    OUT.print(table(f"Learning rates for {curve.phase}", ("", "rate"), rows))
    OUT.print(f"The curve: {out}", markup=False)


def _phases_table(found: Plan):
    rows = []
    for index, parts in enumerate(found.phases):
        of_blocks = {block: found.of_block(index, block) for block in found.blocks}
        trainable = sum(block.trainable for block in of_blocks.values())
        rate = max(block.rate for block in of_blocks.values())
        rows.append([parts.phase.name, parts.phase.train, f"{parts.phase.epochs}", f"{parts.steps:,}"])
        rows[-1] += [f"{trainable:,}", parts.boundary or "the images", f"{rate:.2g}"]
    columns = ("phase", "trains", "epochs", "steps", "parameters", "boundary", "highest rate")
    return table("Plan", columns, rows)


def _costs_table(costs: Sequence[PhaseCost]):
    lines: dict[str, Callable[[PhaseCost], str]] = {
        "boundary": lambda cost: cost.boundary or "the images",
        "cache, MB": lambda cost: f"{cost.cache_bytes / 1e6:,.1f}" if cost.boundary else "",
        "kept in": lambda cost: cost.tier or "",
        "pays after, epochs": lambda cost: "" if cost.break_even is None else f"{cost.break_even:.1f}",
        "GFLOP a step": lambda cost: f"{cost.step_flops / 1e9:,.3g}",
        "GB a step": lambda cost: "?" if cost.step_bytes is None else f"{cost.step_bytes / 1e9:,.3g}",
        "peak, MB": lambda cost: "?" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:,.0f}",
        "programs": lambda cost: f"{cost.programs}",
        "compile, s": lambda cost: f"{cost.compile_seconds:,.1f}",
        "extract, s": lambda cost: f"{cost.extract_seconds:,.1f}",
        "train, s": lambda cost: f"{cost.train_seconds:,.1f}",
    }
    rows = [[name, *(shown(cost) for cost in costs)] for name, shown in lines.items()]
    return table("Cost", ("", *(cost.name for cost in costs)), rows)


def _compared_table(costs: Sequence[PhaseCost], finished: Sequence[PhaseResult]):
    rows = []
    for cost, result in zip(costs, finished, strict=False):
        foretold = cost.extract_seconds + cost.train_seconds
        took = result.extract_seconds + result.train_seconds
        rows.append([cost.name, f"{foretold:,.1f}", f"{took:,.1f}", f"{foretold / took:.2f}"])
    columns = ("phase", "extract and train s, foretold", "measured", "ratio")
    return table("Foretold and measured", columns, rows)


def _blocks_table(found: Plan):
    rows = []
    for block in reversed(found.blocks):
        cells = [found.of_block(index, block) for index in range(len(found.phases))]
        shown = [f"{cell.trainable:,} at {cell.rate:.2g}" if cell.trainable else "frozen" for cell in cells]
        rows.append([block, f"{found.parameters(block):,}", *shown])
    return table("Blocks", ("block", "parameters", *(parts.phase.name for parts in found.phases)), rows)
