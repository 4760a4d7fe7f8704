"""The step from a resolved run to one that can be trained: the arrays are loaded."""

import functools
from pathlib import Path

from transfer_jax.models import create_model
from transfer_jax.planning.resolved_run import ResolvedRun
from transfer_jax.training.reinitialize import reinitialize
from transfer_jax.training.run import Run
from transfer_jax.weights import load_pretrained


def load_network(resolved: ResolvedRun, workdir: Path) -> Run:
    """Loads the weights of a run; nothing is trained and nothing is written.

    Args:
        resolved: The run.
        workdir: The run's folder.

    Raises:
        ValueError: If the weights do not fit the network, or if a phase requires a cache that is impossible.
    """
    config, network = resolved.config, resolved.network
    for parts in resolved.phases:
        resolved.caching(parts)  # An impossible cache is an error before anything is computed.
    build = functools.partial(
        create_model,
        config.model,
        len(resolved.train.class_names),
        hidden=config.hidden,
        dropout=config.dropout,
        drop_path=config.drop_path,
        image_size=network.preprocessing.image_size,
        taps=config.taps,
        seed=config.seed,
    )
    model = build(abstract_backbone=network.spec is not None)
    if network.spec is not None:
        load_pretrained(model, network.spec)
    if config.reinitialize:
        reinitialize(model, build(), config.reinitialize)
    return Run.of(
        model,
        config=config,
        workdir=workdir,
        preprocessing=network.preprocessing,
        train=resolved.train,
        evaluation=resolved.evaluation,
        known_row_shapes=network.row_shapes,
    )
