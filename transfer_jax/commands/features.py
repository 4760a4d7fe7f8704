"""The commands that work on cached features: `transfer-jax extract | heads`."""

from pathlib import Path

from transfer_jax.commands.config_options import Config, Given, default_workdir, settled
from transfer_jax.commands.runs import scores_table
from transfer_jax.models import create_model
from transfer_jax.report.console import BARS, OUT, table
from transfer_jax.runs.workdir import check_place
from transfer_jax.search.heads import HeadSearch, search_heads
from transfer_jax.search.heads_sweep import Grid
from transfer_jax.storage.remote import local_of
from transfer_jax.training.phase_data import Extractor
from transfer_jax.training.run import prepare

_GRID = Grid()


def extract(
    config: Config, boundary: str = "pre_logits", workdir: Path | None = None, given: Given = None
) -> None:
    """Run the frozen base once and write its outputs as NumPy arrays, with a manifest.

    Takes the same configs and options as `train`, and a training with the same values uses the result.

    Args:
        config: Which images, network and preprocessing.
        boundary: The block whose activations are written.
        workdir: Folder of the run.
        given: The fields that options set.
    """
    folder = local_of(workdir or default_workdir(config))
    check_place(config, folder)
    create_model(config.model, 2, abstract_backbone=True, abstract_head=True).backbone.span(None, boundary)
    config = settled(config, given, folder).config
    run = prepare(config, folder, BARS)
    extractor = Extractor(run, boundary, run.arrays)
    rows = []
    for part, dataset in (("training", run.train), ("held out", run.evaluation)):
        done = extractor(dataset, BARS, f"extracting {part} features")
        shape = (len(done.cache), *done.cache.manifest.row_shape)
        rows.append([part, str(shape), f"{done.rows:,}", f"{done.seconds:.1f}", str(done.cache.directory)])
    OUT.print(table(f"Features at {boundary}", ("part", "shape", "computed", "seconds", "folder"), rows))


def heads(
    config: Config,
    train: str = "head",
    grid: Grid = _GRID,
    validation: float = 0.25,
    epochs: int = 100,
    patience: int = 10,
    workdir: Path | None = None,
    given: Given = None,
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
        given: The fields that options set.
    """
    default_folder = default_workdir(config)
    folder = workdir or default_folder.with_name(f"{default_folder.name}-heads")
    config = settled(config, given, folder).config
    found = search_heads(
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


def _show_heads(found: HeadSearch, folder: Path) -> None:
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
    OUT.print(scores_table(found.metrics))
    OUT.print(f"The best as a model, and all in heads.csv: {folder}", markup=False)
    OUT.print(f"Try it: transfer-jax predict {folder} IMAGE …", highlight=False, markup=False)
