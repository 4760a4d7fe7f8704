import dataclasses

import jax
import numpy as np
import pytest

from transfer_jax.data import ImageDataset, image_fetch
from transfer_jax.features import make_prefix
from transfer_jax.freezing import Phase
from transfer_jax.report.progress import Silent
from transfer_jax.search.head_sweep import Examples, Grid
from transfer_jax.search.tail_sweep import sweep_tails
from transfer_jax.training.phase_programs import PhasePrograms
from transfer_jax.training.phase_trainer import fresh_state
from transfer_jax.training.run import Run

GRID = Grid(learning_rates=(1e-3, 0.02), weight_decays=(0.0, 0.1), label_smoothings=(0.0, 0.1), seeds=(0, 3))
ONE = Grid(learning_rates=(0.02,), weight_decays=(0.1,), label_smoothings=(0.1,), seeds=(3,))
EPOCHS = 4


def phase(**changes) -> Phase:
    settings = {"train": "from_('blocks.11')", "epochs": 1, "learning_rate": 0.02, "shape": "constant"}
    return Phase(name="only", cache="require", **{**settings, **changes})


def examples(run: Run, dataset: ImageDataset) -> Examples:
    """Features below the blocks that train, with half the weight for every second image."""
    prefix = make_prefix(run.graphdef, "blocks.1", run.preprocessing, run.dtype)
    images = image_fetch(dataset, run.preprocessing)(np.arange(len(dataset)))["image"]
    features = np.asarray(jax.jit(prefix)(run.arrays, {"image": images}))
    return Examples(features, dataset.labels, np.where(np.arange(len(dataset)) % 2, 0.5, 1.0))


def sweep(run: Run, grid: Grid = GRID, **settings):
    train, validation = (examples(run, part) for part in (run.train, run.evaluation))
    limits = {"epochs": EPOCHS, "patience": EPOCHS, **settings}
    return sweep_tails(run, run.parts(0), train, validation, grid, progress=Silent(), **limits)


def candidate(found, like: Grid):
    setting = (*like.settings()[0], like.seeds[0])
    names = ("learning_rate", "weight_decay", "label_smoothing", "seed")
    (one,) = (each for each in found.candidates if tuple(getattr(each, name) for name in names) == setting)
    return one


def test_each_candidate_trains_independently(make_run):
    run = make_run(phase())
    together, alone = candidate(sweep(run), ONE), sweep(run, ONE).candidates[0]
    assert together.epoch == alone.epoch
    assert together.loss == pytest.approx(alone.loss, rel=1e-4)
    for path, array in alone.arrays.items():
        np.testing.assert_allclose(together.arrays[path], array, rtol=1e-3, atol=1e-5)


def test_steps_and_scores_are_those_of_a_run(make_run):
    run = make_run(phase(weight_decay=0.1), label_smoothing=0.1)
    found = sweep(run, ONE).candidates[0]
    parts, train, held_out = run.parts(0), examples(run, run.train), examples(run, run.evaluation)
    functions = PhasePrograms(run, parts).functions
    state, frozen = fresh_state(run, parts, run.arrays)
    state = dataclasses.replace(state, seed=np.uint32(3))
    assert held_out.weights is not None
    scores, arrays, step = [], [], jax.jit(functions["step"])
    for epoch in range(EPOCHS):
        for rows in np.random.default_rng((3, epoch)).permutation(36).reshape(3, 12):
            columns = train.arrays()
            batch = {
                "features": columns["features"],
                "label": columns["labels"],
                "weight": columns["weights"],
            }
            batch = {name: array[rows] for name, array in batch.items()}
            state, _ = step(state, frozen, batch, parts.rates(0))
        logits = functions["evaluate"](
            {**frozen, **state.averaged(), **state.model_state}, {"features": held_out.features}
        )
        right = np.asarray(logits.argmax(-1)) == held_out.labels
        log_loss = -np.asarray(jax.nn.log_softmax(logits))[np.arange(12), held_out.labels]
        scores.append(
            [np.average(each, weights=held_out.weights) for each in (-right.astype(float), log_loss)]
        )
        arrays.append(state.trainable)
    best = min(range(EPOCHS), key=lambda epoch: scores[epoch])
    assert found.epoch == best + 1
    assert [-found.score, found.loss] == pytest.approx(scores[best], rel=1e-4)
    for path, array in arrays[best].items():
        np.testing.assert_allclose(found.arrays[path], array, rtol=1e-3, atol=1e-5)


def test_a_candidate_without_improvement_is_not_updated(make_run):
    run = make_run(phase())
    grid = dataclasses.replace(ONE, learning_rates=(1e-12, 0.02))
    found = sweep(run, grid, epochs=30, patience=2)
    assert found.epochs < 30
    idle = next(each for each in found.candidates if each.learning_rate == 1e-12)
    assert idle.epoch < found.epochs
    for path, array in idle.arrays.items():
        np.testing.assert_allclose(array, run.arrays[path], atol=1e-6)


def test_the_best_candidates_come_first(make_run):
    found = sweep(make_run(phase())).candidates
    assert len(found) == 16
    order = [(-each.score, each.loss) for each in found]
    assert order == sorted(order)
    assert len({float(each.arrays["head/classifier/kernel"].sum()) for each in found}) == 16
