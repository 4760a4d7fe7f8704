"""The step from a resolved run to one that can be trained: the arrays are loaded."""

import functools
from pathlib import Path

from transfer_jax.models import Classifier, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.models.registry import family_of
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.report.progress import Progress
from transfer_jax.training.loaded_weights import LoadedWeights
from transfer_jax.training.reinitialize import chosen_blocks, reinitialize
from transfer_jax.training.run import Run
from transfer_jax.weights import LoadReport, WeightsSpec, hub, load_pretrained


def load_network(resolved: ResolvedRun, workdir: Path, progress: Progress | None = None) -> Run:
    """Loads the weights of a run; nothing is trained and nothing is written.

    Args:
        resolved: The run.
        workdir: The run's folder.
        progress: Receives a line about arrays of the weight file that are not used; None shows none.

    Raises:
        ValueError: If the weights do not fit the network, or if a phase requires a cache that is impossible.
    """
    config, network = resolved.config, resolved.network
    for parts in resolved.phases:
        resolved.caching(parts)  # An impossible cache is an error before anything is computed.
    build = functools.partial(
        create_model,
        config.model,
        resolved.train.task.outputs,
        hidden=config.hidden,
        dropout=config.dropout,
        drop_path=config.drop_path,
        image_size=network.preprocessing.image_size,
        taps=config.taps,
        seed=config.seed,
    )
    model = build(abstract_backbone=network.spec is not None)
    report = None if network.spec is None else load_pretrained(model, network.spec)
    if report is not None and network.spec is not None and progress is not None:
        for note in report.notes:
            progress.log(f"weights {network.spec.name}: {note}")
    if config.reinitialize:
        reinitialize(model, build(), config.reinitialize)
    return Run.of(
        model,
        config=config,
        workdir=workdir,
        preprocessing=network.preprocessing,
        train=resolved.train,
        evaluation=resolved.evaluation,
        test=resolved.test,
        weights=_loaded_weights(config.model, model, network.spec, report, config.reinitialize),
        known_feature_shapes=network.feature_shapes,
    )


def _loaded_weights(
    name: str, model: Classifier, spec: WeightsSpec | None, report: LoadReport | None, reinitialized: str
) -> LoadedWeights:
    """Returns the source of each array of a model."""
    _, params, stats = split(model)
    paths = frozenset({**params, **stats})
    if family_of(name).has_weights:
        own = frozenset(path for path in paths if block_of(path) != "head")
        return LoadedWeights(name="own", file="", loaded=own, initial=paths - own)
    if spec is None or report is None:
        return LoadedWeights(name="none", file="", loaded=frozenset(), initial=paths)
    blocks = chosen_blocks(model, reinitialized) if reinitialized else ()
    random = {path for path in paths if block_of(path) in blocks} | (paths - {*report.loaded})
    converted = {text.split()[0].rstrip(",") for text in report.adapted}
    return LoadedWeights(
        name=spec.name,
        file=str(hub.locate(spec.address) or spec.address),
        loaded=frozenset(report.loaded) - converted - random,
        initial=frozenset(random),
    )
