"""The same numbers on one device, on a mesh, and by pmap."""

import jax
import numpy as np
import pytest

from transfer_jax.data import Augmentation
from transfer_jax.freezing import Phase
from transfer_jax.report.progress import Silent
from transfer_jax.training.phase import PhaseTrainer

KINDS = {"mesh": {"strategy": "mesh"}, "fsdp": {"strategy": "mesh", "fsdp": 4}, "pmap": {"strategy": "pmap"}}
LIVELY = Augmentation(crop_scale=(0.5, 1.0), mixup=0.4, cutmix=0.5)


def trained(make_run, phase, steps, **settings):
    run = make_run(phase, batch_size=16, eval_fraction=0.5, **settings)
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent())
    batches = iter(trainer.inputs.train)
    metrics = [trainer.step(next(batches), trainer.parts.rates(step)) for step in range(steps)]
    return trainer, metrics, jax.device_get(trainer.all_arrays()), trainer.predict()


PHASES = {
    "everything": (
        Phase(name="one", train="all_()", epochs=20, optimizer="adamw", learning_rate=1e-3, clip_norm=1.0),
        {},
    ),
    "batch statistics": (
        Phase(name="one", train="all_()", norm="train", epochs=20, learning_rate=0.01),
        {"drop_path": 0.0},
    ),
    "in parts": (
        Phase(name="one", train="all_()", norm="train", epochs=20, learning_rate=0.01),
        {"accumulate": 2},
    ),
    "augmented": (
        Phase(name="one", train="from_('top')", augment=True, epochs=20, learning_rate=0.01),
        {"augmentation": LIVELY},
    ),
    "features": (
        Phase(
            name="one",
            train="from_('blocks.11')",
            feature_brightness=0.2,
            feature_flips="both",
            epochs=20,
            learning_rate=0.01,
        ),
        {},
    ),
    "head": (
        Phase(name="one", train="head", epochs=20, learning_rate=0.01),
        {"ema_decay": 0.9, "label_smoothing": 0.1},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PHASES)
def test_numbers_are_those_of_one_device(make_run, make_toy, name, kind):
    phase, settings = PHASES[name]
    toy = make_toy(hidden=(64,), dropout=0.3)
    one, many = (trained(make_run, phase, 20, toy=toy, **settings, **each) for each in ({}, KINDS[kind]))
    for expected, found in zip(one[1], many[1], strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for path, expected in one[2].items():
        np.testing.assert_allclose(many[2][path], expected, rtol=1e-3, atol=1e-4, err_msg=path)
    np.testing.assert_allclose(many[3], one[3], atol=1e-4)
