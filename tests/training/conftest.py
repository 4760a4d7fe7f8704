"""Training steps of the toy network."""

from collections.abc import Callable
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing import Phase, boundary, labels, partition
from transfer_jax.freezing.labels import trainable_blocks
from transfer_jax.freezing.learning_rates import PhaseRates
from transfer_jax.models import Classifier, Preprocessing
from transfer_jax.models.flat_arrays import split, with_training
from transfer_jax.models.paths import block_of
from transfer_jax.models.remat_names import Remat
from transfer_jax.tasks import SingleLabel
from transfer_jax.training.forward import Forward
from transfer_jax.training.optimizer import make_optimizer
from transfer_jax.training.phase_step import StepOptions, make_phase_step
from transfer_jax.training.state import TrainState


@pytest.fixture(scope="session")
def batch() -> dict[str, np.ndarray]:
    """Returns a batch of twelve random images of 16 pixels."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (12, 16, 16, 3), np.uint8),
        "label": (np.arange(12) % 3).astype(np.int32),
    }


@pytest.fixture(scope="session")
def sgd() -> Callable[..., Phase]:
    """Returns a function that makes a phase of one epoch of gradient descent with learning rate 1."""

    def make(train: str, **changes) -> Phase:
        settings = {"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0, "shape": "constant", **changes}
        return Phase(**{"name": "p", "train": train, "epochs": 1, **settings})

    return make


@pytest.fixture(scope="session")
def make_step() -> Callable[..., SimpleNamespace]:
    """Returns a function that makes a training step of a network, with all arguments but the batch."""

    def make(
        model: Classifier,
        phase: Phase,
        *,
        cached: bool = False,
        sliced: bool = False,
        remat: Remat = "none",
        scan_layers: bool = False,
        dtype=jnp.float32,
        class_weights=(1.0, 1.0, 1.0),
        seed: int = 0,
        **options,
    ) -> SimpleNamespace:
        graphdef, params, stats = split(model)
        labelled = labels(params, phase.selector, model.backbone.block_names)
        blocks = trainable_blocks(labelled)
        trainable, frozen = partition(params, labelled)
        moving = {path: x for path, x in stats.items() if phase.norm == "train" and block_of(path) in blocks}
        end = boundary(labelled, model.backbone.block_names)
        forward = Forward(
            graphdef=with_training(graphdef, {**params, **stats}, blocks, norm=phase.norm),
            start=end if cached else None,
            prefix=end if sliced else None,
            remat=remat,
            scan_layers=scan_layers,
            preprocessing=Preprocessing(mean=(127.0, 127.0, 127.0), std=(64.0, 64.0, 64.0)),
            dtype=dtype,
        )
        optimizer = make_optimizer(phase, labelled)
        ema = options.get("ema_decay", 0) > 0
        return SimpleNamespace(
            state=TrainState.create(trainable, optimizer, moving, ema=ema, seed=seed),
            frozen={**frozen, **{path: x for path, x in stats.items() if path not in moving}},
            rates=PhaseRates(phase, labelled, 1).at(0),
            step=make_phase_step(
                forward,
                optimizer,
                StepOptions(
                    task=SingleLabel(tuple(map(str, range(len(class_weights))))),
                    class_weights=np.array(class_weights, np.float32),
                    **options,
                ),
            ),
            forward=forward,
            arrays={**params, **stats},
            graphdef=graphdef,
            boundary=end,
        )

    return make
