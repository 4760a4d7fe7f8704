"""The command `transfer-jax probe`: the score of simple models on the features of each depth."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from transfer_jax.commands.config_options import Config, Given, default_workdir, resolved_run
from transfer_jax.report.console import BARS, OUT, print_line, table

if TYPE_CHECKING:
    from transfer_jax.data import ImageDataset
    from transfer_jax.search.probe_result import ProbeResult
    from transfer_jax.training.run import Run


def probe(
    config: Config,
    at: tuple[str, ...] = ("all",),
    probe: Literal["knn", "linear", "both"] = "both",
    workdir: Path | None = None,
    given: Given = None,
) -> None:
    """Scores the features of each depth by nearest neighbours and by a linear model.

    The network runs once over all images, and nothing is trained. The table shows which block has the best
    pretrained features for your targets: classes, several labels or numbers. If it is not the last one, train
    the blocks above it.

    A cross-validation of the training images chooses the number of neighbours, the L2 penalty and the best
    depth. The validation images choose nothing. It takes the same configs and options as `train`; the
    schedule is not used.

    Args:
        config: The images, the network and the preprocessing.
        at: Names of blocks, or `all`.
        probe: The model, or both.
        workdir: Folder of the run that would train; by default `runs/` and the name of the images. Nothing is
            written.
        given: The fields that options set.
    """
    import jax.numpy as jnp

    from transfer_jax.models.flat_arrays import merge
    from transfer_jax.runs.extract_features import extract_features
    from transfer_jax.runs.load_network import load_network
    from transfer_jax.search.knn_probe import knn_probe
    from transfer_jax.search.linear_probe import linear_probe

    folder = workdir or default_workdir(config)
    run = load_network(resolved_run(config, given, folder, schedule=False), folder)
    dataset, validation = _with_parts(run)
    features = extract_features(
        merge(run.graphdef, run.arrays),
        dataset,
        "all" if at == ("all",) else at,
        preprocessing=run.preprocessing,
        precision=jnp.dtype(run.prefix_dtype).name,
        progress=BARS,
    )
    probes = {"knn": knn_probe, "linear": linear_probe}
    result = None
    for name in probes if probe == "both" else [probe]:
        result = probes[name](features, dataset, validation)
        heading, *rows = result.rows()
        OUT.print(table(result.title(), heading, rows))
    assert result is not None  # There is a probe.
    _print_next(result, run)


def _with_parts(run: "Run") -> "tuple[ImageDataset, list[int]]":
    """Returns training and validation images as one dataset, and the positions of the validation images."""
    import numpy as np

    train, validation, parent = run.train.rows, run.evaluation.rows, run.train.parent
    assert train is not None  # Both are parts of one dataset.
    assert validation is not None
    assert parent is not None
    whole = parent.subset(np.concatenate([train, validation]))
    return whole, [*range(len(train), len(whole))]


def _print_next(result: "ProbeResult", run: "Run") -> None:
    names, best = run.block_names, result.best.split("/")[0]
    if best in names[:-1]:
        above = names[names.index(best) + 1]
        if above != names[-1]:
            print_line(OUT, f"Blocks above the best depth: --train \"from_('{above}')\" trains them")
    print_line(OUT, f"Next: transfer-jax plan --images {run.config.images} --cost")
