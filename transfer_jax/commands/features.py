"""The commands on cached features: `transfer-jax extract | heads`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_jax.commands.config_options import Config, Given, default_workdir, resolved_run
from transfer_jax.counted import counted
from transfer_jax.report.console import BARS, OUT, print_line, table
from transfer_jax.search.grid import Grid

if TYPE_CHECKING:
    from transfer_jax.search.head_search import HeadSearch

_GRID, _PATIENCE = Grid(), 10


def extract(
    config: Config, boundary: str = "pre_logits", workdir: Path | None = None, given: Given = None
) -> None:
    """Extracts the features of all images into NumPy files.

    The frozen blocks up to the boundary run once for each image. The folder also gets a manifest. It takes
    the same configs and options as `train`, and a training with the same values uses the features.

    Args:
        config: The images, the network and the preprocessing.
        boundary: The block whose activations are the features.
        workdir: Folder of the run; by default `runs/` and the name of the images.
        given: The fields that options set.
    """
    from transfer_jax.models.registry import create_model
    from transfer_jax.runs.load_network import load_network
    from transfer_jax.runs.workdir import check_place
    from transfer_jax.storage.remote import local_path
    from transfer_jax.training.feature_extractor import FeatureExtractor

    folder = local_path(workdir or default_workdir(config))
    check_place(config, folder)
    create_model(config.model, 2, abstract_backbone=True, abstract_head=True).backbone.span(None, boundary)
    run = load_network(resolved_run(config, given, folder, schedule=False), folder)
    extractor = FeatureExtractor(run, boundary, run.arrays)
    rows = []
    for part, dataset in (("training", run.train), ("validation", run.evaluation)):
        done = extractor.extract(dataset, BARS, f"extracting {part} features")
        shape = (len(done.cache), *done.cache.arrays["features"].shape)
        rows.append([part, str(shape), f"{done.rows:,}", f"{done.seconds:.1f}", str(done.cache.directory)])
    columns = ("images", "shape", "computed", "seconds", "folder")
    OUT.print(table(f"Features at {boundary}", columns, rows))


def heads(
    config: Config,
    train: str = "head",
    grid: Grid = _GRID,
    validation: float = 0.25,
    epochs: int = 100,
    workdir: Path | None = None,
    given: Given = None,
) -> None:
    """Trains hundreds of heads on the same features and saves the best one.

    All heads train in one program on features that are extracted once. With `--train` a dozen tails of
    the network train instead. It takes the same configs and options as `train`; the schedule is not used.
    The commands `predict` and `export` take the result. A candidate stops after ten epochs without an
    improvement, or as many as `--patience` says.

    Args:
        config: The images, the network and the preprocessing.
        train: Selector of what each candidate trains: `head`, or blocks such as `top(1)`.
        grid: The settings; all combinations are tried. By default 256 heads, or twelve tails.
        validation: Fraction of the training images that chooses the best candidate.
        epochs: Largest number of epochs.
        workdir: Folder of the result; by default `runs/`, the name of the images and `-heads`.
        given: The fields that options set.
    """
    from transfer_jax.search.head_search import search_heads

    default_folder = default_workdir(config)
    folder = workdir or default_folder.with_name(f"{default_folder.name}-heads")
    found = search_heads(
        resolved_run(config, given, folder, schedule=False),
        folder,
        None if grid == _GRID else grid,
        train=train,
        validation_fraction=validation,
        epochs=epochs,
        patience=config.patience or _PATIENCE,
        progress=BARS,
    )
    _show_heads(found, folder)


def _show_heads(found: "HeadSearch", folder: Path) -> None:
    """Prints the best candidates of a search."""
    from transfer_jax.commands.scores_table import scores_table
    from transfer_jax.tasks import task_class

    count, sweep = len(found.sweep.candidates), found.sweep
    rows = [
        [
            f"{each.learning_rate:g}",
            f"{each.weight_decay:g}",
            f"{each.label_smoothing:g}",
            str(each.seed),
            str(each.epoch),
            sweep.metric.text(each.score),
            f"{each.loss:.3f}",
        ]
        for each in found.sweep.candidates[:10]
    ]
    title = (
        f"The best {len(rows)} of {count}, trained on {counted(found.trained_images, 'training image')} and "
        f"scored on {found.selecting_images:,} others, which select the best; "
        f"{found.seconds:.1f} s, and {sweep.compile_seconds:.1f} s to compile"
    )
    columns = ("rate", "decay", "smoothing", "seed", "best epoch", sweep.metric.title, "loss")
    OUT.print(table(title, columns, rows))
    images = counted(found.metrics["images"], "validation image")
    metric = task_class(found.metrics).metrics[0]
    for name, setting, score in (
        ("Linear model by cross-validation", "L2", found.linear),
        ("Nearest neighbours", "k", found.neighbours),
    ):
        if score is not None:
            print_line(
                OUT,
                f"{name} ({setting} = {score.setting:.3g}), all training images, on the {images}: "
                f"{metric.title} {metric.text(score.score)} ± {metric.text(score.standard_error)}",
            )
    if found.temperature is not None:
        print_line(
            OUT,
            f"Temperature (export --calibrated): {found.temperature:.3g}, chosen by the "
            f"{found.selecting_images:,} images that select the best",
        )
    OUT.print(scores_table(found.metrics, f"The best on {images} (none trained on; they selected nothing)"))
    print_line(OUT, f"The best model, and all candidates in heads.csv: {folder}")
    print_line(OUT, f"Next: transfer-jax predict {shlex.quote(str(folder))} IMAGE ...")
