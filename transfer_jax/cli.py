"""The command line: `transfer-jax demo | train | plan | evaluate | …`, and the commands of `networks`."""

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.logging import RichHandler
from rich.markup import escape

from transfer_jax import networks, processes, schedules, studies
from transfer_jax.config import TrainConfig, load_config, shipped_configs
from transfer_jax.data import load_dataset, stratified_split
from transfer_jax.launch import PREEMPTED
from transfer_jax.launch import launch as run_processes
from transfer_jax.memory import keep_freed_memory
from transfer_jax.mirror import local_of, pull, shown
from transfer_jax.models import create_model
from transfer_jax.report.console import BARS, CONSOLE, OUT, table
from transfer_jax.report.predictions import write_predictions
from transfer_jax.training import fit
from transfer_jax.training.evaluate import evaluation_metrics
from transfer_jax.training.inference import image_files, predict_dataset, unlabelled
from transfer_jax.training.inputs import Extractor
from transfer_jax.training.interrupt import Terminated, terminable
from transfer_jax.training.pods import without_tpu
from transfer_jax.training.result import Result
from transfer_jax.training.run import images_of, prepare
from transfer_jax.training.sweep import Grid
from transfer_jax.training.workdir import check_place, read_config
from transfer_jax.weights.saved import SavedModel

_CONFIG_COMMANDS = ("train", "plan", "find-rate", "extract", "heads")
_GRID = Grid()

Config = Annotated[TrainConfig, tyro.conf.arg(name="")]


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit code: 0; 1 where another process of the run was lost; 2 for what the user can mend; 75 after
        SIGTERM, with a checkpoint where there is anything to save; 130 after Ctrl-C, likewise.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(
        format="%(message)s", handlers=[RichHandler(console=CONSOLE, show_time=False, show_path=False)]
    )
    keep_freed_memory()
    _use_compilation_cache()
    try:
        with terminable():
            if arguments[:1] in (["train"], ["extract"]):
                _join()
            base, arguments = _take_config(arguments)
            return _run(arguments, base) or 0
    except KeyboardInterrupt as stopped:
        CONSOLE.print("Stopped; nothing is lost. The same command goes on from here.")
        return PREEMPTED if isinstance(stopped, Terminated) else 130
    except (ArithmeticError, ImportError, OSError, RuntimeError, ValueError) as error:
        if debug:
            traceback.print_exc()
        else:
            CONSOLE.quiet = False
            line = " ".join(str(error).split()) or type(error).__name__
            CONSOLE.print(f"[red]error:[/red] {escape(line)}", highlight=False, soft_wrap=True)
        code = 1 if _several() and isinstance(error, jax.errors.JaxRuntimeError) else 2
        if _several():
            processes.leave(code)
        return code


def _join() -> None:
    """Connects to the other processes of a run; only the first of them talks."""
    processes.join()
    CONSOLE.quiet = OUT.quiet = _several() and not processes.is_first()


def _several() -> bool:
    return jax.distributed.is_initialized() and processes.count() > 1


def _take_config(arguments: list[str]) -> tuple[TrainConfig | None, list[str]]:
    """Reads the config that `train CONFIG …` names; its values become the defaults of the options."""
    if len(arguments) > 1 and arguments[0] in _CONFIG_COMMANDS and not arguments[1].startswith("-"):
        return load_config(arguments[1]), [arguments[0], *arguments[2:]]
    return None, arguments


def _split_launched(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divides `launch … -- train …`."""
    if arguments[:1] != ["launch"] or "--" not in arguments:
        return arguments, ["train", "--help"]
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _run(arguments: list[str], base: TrainConfig | None) -> int | None:
    arguments, launched = _split_launched(arguments)
    default = TrainConfig(images=tyro.MISSING) if base is None else base

    def train(
        config: Config = default,
        workdir: Path | None = None,
        force_config: bool = False,
        profile: bool = False,
    ) -> None:
        """Train a schedule, or go on with it where it was stopped.

        `transfer-jax train CONFIG` trains an experiment: a Python file, or the name of one that comes along.
        `transfer-jax train --images DIR --model NAME` fine-tunes on a folder with a subfolder a class.
        Every field of the config is an option.

        Args:
            config: What to train.
            workdir: Folder of the run; `runs/` and the name of the images, if not given.
            force_config: Go on in a folder that was begun with another config; what differs is not undone.
            profile: Record ten steps in `profile` there, for xprof, TensorBoard or Perfetto.
        """
        folder = workdir or _default_workdir(config)
        _show_result(fit(config, folder, progress=BARS, force=force_config, profile=profile))

    def plan(
        config: Config = default,
        blocks: bool = False,
        cost: bool = False,
        workdir: Path | None = None,
        topology: str | None = None,
        images_per_chip: int | None = None,
        trains: tuple[str, ...] = (),
        out: Path | None = None,
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
        """
        if topology:
            without_tpu()
        schedules.show_plan(config, blocks, out)
        if topology:
            schedules.show_pod(config, topology, images_per_chip, trains)
        if cost or workdir:
            schedules.show_costs(config, workdir)

    def find_rate(
        config: Config = default,
        phase: str | None = None,
        workdir: Path | None = None,
        out: Path | None = None,
        lowest: float = 1e-6,
        highest: float = 1.0,
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
        """
        schedules.show_rates(config, phase, workdir, out, lowest, highest)

    def extract(config: Config = default, boundary: str = "pre_logits", workdir: Path | None = None) -> None:
        """Run the frozen base once and write its outputs as NumPy arrays, with a manifest.

        Takes the same configs and options as `train`, and a training with the same values uses the result.

        Args:
            config: Which images, network and preprocessing.
            boundary: The block whose activations are written.
            workdir: Folder of the run.
        """
        folder = local_of(workdir or _default_workdir(config))
        check_place(config, folder)
        create_model(config.model, 2, abstract_backbone=True, abstract_head=True).backbone.span(
            None, boundary
        )
        run = prepare(config, folder, BARS)
        extractor = Extractor(run, boundary, run.arrays)
        rows = []
        for part, dataset in (("training", run.train), ("held out", run.evaluation)):
            done = extractor(dataset, BARS, f"extracting {part} features")
            shape = (len(done.cache), *done.cache.manifest.row_shape)
            rows.append(
                [part, str(shape), f"{done.rows:,}", f"{done.seconds:.1f}", str(done.cache.directory)]
            )
        OUT.print(table(f"Features at {boundary}", ("part", "shape", "computed", "seconds", "folder"), rows))

    def heads(
        config: Config = default,
        train: str = "head",
        grid: Grid = _GRID,
        validation: float = 0.25,
        epochs: int = 100,
        patience: int = 10,
        workdir: Path | None = None,
    ) -> None:
        """Train hundreds of heads on the frozen base in one program, or a dozen suffixes; keep the best.

        Takes the same configs and options as `train`; the schedule is not used. `predict` and `export`
        take the result.

        Args:
            config: Which images, network and preprocessing.
            train: What each trains: `head`, or a selector such as `top(1)`, from the cached features below.
            grid: Every combination of rates, decays, smoothings and seeds; unless it is given, a smaller one
                for more than a linear head.
            validation: Share of the training images that decides which is best.
            epochs: Epochs at most.
            patience: Epochs without a gain after which one stops.
            workdir: Folder of the result; `runs/`, the name of the images and `-heads`, if not given.
        """
        default_folder = _default_workdir(config)
        folder = workdir or default_folder.with_name(f"{default_folder.name}-heads")
        found = studies.search_heads(
            config,
            folder,
            None if grid == _GRID else grid,
            train=train,
            validation_fraction=validation,
            epochs=epochs,
            patience=patience,
            progress=BARS,
        )
        _show_heads(found, folder)

    def launch(
        processes: int, devices: int | None = None, restarts: int = 3, pause: float = 1.0, grace: float = 60.0
    ) -> int:
        """Train or extract in several processes on this machine, and start again where one of them dies.

        `transfer-jax launch --processes 2 -- train CONFIG …`. On a cluster its scheduler does this.

        Args:
            processes: Number of processes.
            devices: Devices of a CPU that each has.
            restarts: How often to start again, at most; a run goes on from its last checkpoint.
            pause: Seconds before the first time, twice as many before each next one.
            grace: Seconds to save and end in, after Ctrl-C or SIGTERM.
        """
        options = {"devices": devices, "restarts": restarts, "pause": pause, "grace": grace}
        return run_processes(launched, processes, **options, say=CONSOLE.print)

    command = tyro.extras.subcommand_cli_from_dict
    try:
        return command(
            {
                "demo": _demo,
                "train": train,
                "launch": launch,
                "plan": plan,
                "find-rate": find_rate,
                "evaluate": _evaluate,
                "predict": _predict,
                "extract": extract,
                "heads": heads,
                "models": networks.models,
                "inspect": networks.inspect,
                "export": networks.export,
            },
            args=arguments,
            prog="transfer-jax",
            description=(
                "Adapt pretrained image networks; pay only for what you unfreeze. "
                f"Experiments that come along: {', '.join(shipped_configs())}. "
                "Add --debug to any command for a full traceback."
            ),
        )
    finally:
        BARS.abandon()


def _demo(quick: bool = False, workdir: Path | None = None, seed: int = 0) -> None:
    """Adapt a real network to real photographs in three ways, and compare them.

    Args:
        quick: A few epochs on small images, to see that all works.
        workdir: Folder of the runs; `runs/demo`, or `runs/demo-quick`.
        seed: Seed of the split and of the training.
    """
    folder = workdir or Path("runs", "demo-quick" if quick else "demo")
    rows = []
    for name, result in studies.demo(folder, quick=quick, seed=seed, progress=BARS):
        rows += studies.table_rows(name, result)
    OUT.print(table("ELPV solar cells, EfficientNet-Lite0", studies.COLUMNS, rows))
    OUT.print(f"Models, curves, confusion matrices and worst mistakes: {folder}", markup=False)


def _evaluate(workdir: Annotated[Path, tyro.conf.Positional], images: str | None = None) -> None:
    """Score a trained model.

    Args:
        workdir: Folder of a finished run.
        images: Labelled images, as for `train`; the run's held-out images if not given.
    """
    workdir = local_of(workdir)
    pull(workdir, skip=("features",))
    saved = SavedModel.describe(workdir)
    if images is None:
        config = read_config(workdir)
        _, dataset = stratified_split(images_of(config, workdir, BARS), config.eval_fraction, config.seed)
    else:
        dataset = load_dataset(images)
    if dataset.class_names != saved.class_names:
        raise ValueError(f"the model knows the classes {saved.class_names}, the images {dataset.class_names}")
    probabilities = predict_dataset(workdir, dataset, progress=BARS)
    truth = (dataset.labels, dataset.class_names, dataset.weights)
    scores = evaluation_metrics(probabilities, *truth)
    OUT.print(_scores_table(scores))


def _predict(
    workdir: Annotated[Path, tyro.conf.Positional],
    images: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path | None = None,
) -> None:
    """Classify image files.

    Args:
        workdir: Folder of a finished run.
        images: Files and folders.
        out: A `.csv` or `.json` file to write; without it a table is shown.
    """
    files = image_files(images)
    if out is not None and out.suffix not in (".csv", ".json"):
        raise ValueError(f"--out must end in .csv or .json, got {out}")
    if out is not None and not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}")
    saved = SavedModel.describe(workdir)
    dataset = unlabelled(files, saved.class_names)
    probabilities = predict_dataset(workdir, dataset, progress=BARS)
    if out is not None:
        write_predictions(out, dataset.names, saved.class_names, probabilities)
        OUT.print(f"{len(files)} predictions: {out}", markup=False)
        return
    rows = [
        [name, saved.class_names[int(row.argmax())], f"{row.max():.1%}"]
        for name, row in zip(dataset.names, probabilities, strict=True)
    ]
    OUT.print(table("Predictions", ("image", "class", "probability"), rows))


def _show_result(result: Result) -> None:
    OUT.print(table("Phases", studies.COLUMNS, studies.table_rows(result.workdir.name, result)))
    OUT.print(_scores_table(result.metrics))
    OUT.print(_goodput_line(result.goodput), highlight=False, markup=False)
    workdir = shown(result.workdir)
    OUT.print(f"Model, curves, confusion matrix and worst mistakes: {workdir}", markup=False)
    OUT.print(f"Try it: transfer-jax predict {workdir} IMAGE …", highlight=False, markup=False)


def _goodput_line(goodput: dict) -> str:
    seconds = {part.replace("_", "-"): spent for part, spent in goodput["seconds"].items()}
    total = max(sum(seconds.values()), 1e-9)
    parts = sorted(
        (part for part in seconds if seconds[part] >= 0.01 * total), key=lambda part: -seconds[part]
    )
    shown = ", ".join(f"{part} {seconds[part] / total:.0%}" for part in parts)
    return f"Of {total:,.0f} s: {shown}; {goodput['verdict']}"


def _scores_table(scores: dict):
    rows = [
        [name, f"{row['precision']:.1%}", f"{row['recall']:.1%}", f"{row['f1']:.1%}", str(row["images"])]
        for name, row in scores["per_class"].items()
    ]
    auc = "" if scores["roc_auc"] is None else f", ROC AUC {scores['roc_auc']:.3f}"
    weighted = f" ({scores['weighted_accuracy']:.1%} weighted)" if "weighted_accuracy" in scores else ""
    title = (
        f"Held-out images: accuracy {scores['accuracy']:.1%}{weighted}, "
        f"balanced {scores['balanced_accuracy']:.1%}, macro F1 {scores['macro_f1']:.1%}{auc}"
    )
    return table(title, ("class", "precision", "recall", "F1", "images"), rows)


def _show_heads(found: studies.HeadSearch, folder: Path) -> None:
    rows = [
        [
            f"{each.learning_rate:g}",
            f"{each.weight_decay:g}",
            f"{each.label_smoothing:g}",
            str(each.seed),
            str(each.epoch),
            f"{each.accuracy:.1%}",
            f"{each.log_loss:.3f}",
        ]
        for each in found.sweep.candidates[:10]
    ]
    count, sweep = len(found.sweep.candidates), found.sweep
    title = (
        f"The best ten of {count} on the validation images; "
        f"{found.seconds:.1f} s, and {sweep.compile_seconds:.1f} s to compile"
    )
    columns = ("rate", "decay", "smoothing", "seed", "best epoch", "accuracy", "log loss")
    OUT.print(table(title, columns, rows))
    if found.baseline:
        c, accuracy = found.baseline
        OUT.print(f"Logistic regression (L-BFGS, C = {c:g}) on the same images: {accuracy:.1%}")
    OUT.print(_scores_table(found.metrics))
    OUT.print(f"The best as a model, and all in heads.csv: {folder}", markup=False)
    OUT.print(f"Try it: transfer-jax predict {folder} IMAGE …", highlight=False, markup=False)


def _default_workdir(config: TrainConfig) -> Path:
    return Path("runs", Path(config.images.replace(":", "-")).name)


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user has chosen a place for them."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "transfer_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


if __name__ == "__main__":
    sys.exit(main())
