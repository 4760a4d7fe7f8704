import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.search.head_sweep import BIAS, KERNEL, Examples, Grid, sweep_heads
from transfer_jax.tasks import MultiLabel, Ordinal, Regression, SingleLabel

CLASSES = 3
TASK = SingleLabel(("a", "b", "c"))
ONE = Grid(learning_rates=(0.02,), weight_decays=(0.1,), label_smoothings=(0.1,), seeds=(3,))
GRID = Grid(learning_rates=(0.001, 0.02), weight_decays=(0.0, 0.1), label_smoothings=(0.0, 0.1), seeds=(0, 3))


def examples(count: int, seed: int, noise: float = 1.0) -> Examples:
    """Three clouds of points in eight dimensions."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    centres = np.random.default_rng(0).normal(size=(CLASSES, 8))
    features = centres[labels] + noise * rng.normal(size=(count, 8))
    return Examples(features.astype(np.float32), labels.astype(np.int32), rng.uniform(0.3, 1, count))


TRAIN, VALIDATION = examples(50, 1), examples(40, 2)


def sweep(grid: Grid = GRID, **settings):
    return sweep_heads(TRAIN, VALIDATION, TASK, grid, **{"epochs": 6, "batch_size": 12, **settings})


def by_hand(epochs: int) -> tuple[dict[str, jax.Array], list[float]]:
    """The head of `ONE` by optax, in the same batches, and its weighted accuracy after each epoch."""
    head = {"kernel": jnp.zeros((8, CLASSES)), "bias": jnp.zeros(CLASSES)}
    optimizer = optax.adamw(0.02, weight_decay=0.1, mask={"kernel": True, "bias": False})
    state = optimizer.init(head)
    x, y, w = TRAIN.arrays().values()
    accuracies = []

    def loss(head, rows):
        targets = TASK.targets(jnp.asarray(y)[rows], 0.1)
        logits = x[rows] @ head["kernel"] + head["bias"]
        return (optax.softmax_cross_entropy(logits, targets) * w[rows]).mean()

    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.fold_in(jax.random.key(3), epoch), 50)
        for step in range(4):
            grads = jax.grad(loss)(head, order[12 * step : 12 * step + 12])
            updates, state = optimizer.update(grads, state, head)
            head = cast(dict[str, jax.Array], optax.apply_updates(head, updates))
        found = (VALIDATION.features @ head["kernel"] + head["bias"]).argmax(-1) == VALIDATION.labels
        accuracies.append(float(np.average(found, weights=VALIDATION.weights)))
    return head, accuracies


def test_a_head_equals_that_of_optax_in_its_best_epoch():
    (head,) = sweep(ONE).candidates
    _, accuracies = by_hand(6)
    assert accuracies[head.epoch - 1] == pytest.approx(max(accuracies), abs=1e-6)
    expected, _ = by_hand(head.epoch)
    np.testing.assert_allclose(head.arrays[KERNEL], expected["kernel"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(head.arrays[BIAS], expected["bias"], rtol=1e-4, atol=1e-6)
    assert head.score == pytest.approx(max(accuracies), abs=1e-6)
    logits = VALIDATION.features @ head.arrays[KERNEL] + head.arrays[BIAS]
    likely = jax.nn.log_softmax(logits)[np.arange(40), VALIDATION.labels]
    assert head.loss == pytest.approx(-np.average(likely, weights=VALIDATION.weights), rel=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_heads_train_independently(dropout):
    together, (alone,) = sweep(dropout=dropout).candidates, sweep(ONE, dropout=dropout).candidates
    (found,) = (
        head
        for head in together
        if (head.learning_rate, head.weight_decay, head.label_smoothing, head.seed) == (0.02, 0.1, 0.1, 3)
    )
    for name in ("epoch", "score", "loss"):
        assert getattr(found, name) == pytest.approx(getattr(alone, name), rel=1e-4), name
    for path in (KERNEL, BIAS):
        np.testing.assert_allclose(found.arrays[path], alone.arrays[path], rtol=1e-4, atol=1e-6)


def test_all_combinations_are_trained_and_sorted():
    heads = sweep().candidates
    assert len(heads) == 16
    assert len({dataclasses.astuple(head)[:4] for head in heads}) == 16
    scores = [(-head.score, head.loss) for head in heads]
    assert scores == sorted(scores)
    assert heads[0].score > heads[-1].score
    assert len(Grid().settings()) * len(Grid().seeds) == 256


def test_a_head_stops_when_it_no_longer_improves():
    patient, hasty = (sweep(ONE, epochs=200, patience=patience) for patience in (1000, 4))
    assert patient.epochs == 200
    (head,) = hasty.candidates
    assert hasty.epochs == head.epoch + 4 < 200
    assert sweep(ONE, epochs=hasty.epochs, patience=1000).candidates[0].epoch == head.epoch


def test_a_stopped_head_is_not_updated_while_others_train():
    """The best state of a head does not depend on the number of epochs of the others."""
    grid = dataclasses.replace(ONE, learning_rates=(0.02, 1e-4))
    both, alone = sweep(grid, epochs=100, patience=4), sweep(ONE, epochs=100, patience=4)
    assert both.epochs > alone.epochs
    (found,) = (head for head in both.candidates if head.learning_rate == 0.02)
    np.testing.assert_allclose(found.arrays[KERNEL], alone.candidates[0].arrays[KERNEL], rtol=1e-4, atol=1e-6)


def test_a_sweep_can_be_repeated():
    first, second = sweep(dropout=0.2), sweep(dropout=0.2)
    for one, other in zip(first.candidates, second.candidates, strict=True):
        np.testing.assert_array_equal(one.arrays[KERNEL], other.arrays[KERNEL])


def test_missing_weights_are_equal_weights():
    equal = [
        sweep_heads(
            dataclasses.replace(TRAIN, weights=weights), VALIDATION, TASK, ONE, epochs=3, batch_size=12
        ).candidates[0]
        for weights in (None, np.ones(50))
    ]
    np.testing.assert_array_equal(equal[0].arrays[KERNEL], equal[1].arrays[KERNEL])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rates": (0.1, 0.0)},
            r"learning_rates must be one or more numbers above 0, got \(0.1, 0.0\)",
        ),
        ({"weight_decays": (-1.0,)}, "weight_decays must be one or more numbers at least 0"),
        ({"label_smoothings": (1.0,)}, r"label_smoothings must be one or more numbers in \[0, 1\)"),
        ({"seeds": ()}, r"seeds must be one or more numbers at least 0, got \(\)"),
    ],
)
def test_an_invalid_grid_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        Grid(**changes)


def test_features_that_are_not_pooled():
    maps = Examples(np.zeros((4, 2, 2, 8), np.float32), np.zeros(4, np.int32))
    with pytest.raises(
        ValueError, match=r"pooled features `\(images, channels\)` with the same .* got \(4, 2, 2, 8\)"
    ):
        sweep_heads(maps, VALIDATION, TASK)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (MultiLabel(("a", "b")), lambda x: (x[:, :2] > 0).astype(np.uint8)),
        (Regression(("a", "b")), lambda x: (10 + 3 * x[:, :2]).astype(np.float32)),
        (Ordinal(("0", "1", "2")), lambda x: np.digitize(x[:, 0], [-0.5, 0.5]).astype(np.int32)),
    ],
    ids=["multi_label", "regression", "ordinal"],
)
def test_heads_of_other_tasks_are_scored_as_their_predictions_are(task, labels):
    features = np.random.default_rng(5).normal(size=(90, 4)).astype(np.float32)
    train, validation = (Examples(part, labels(part)) for part in (features[:60], features[60:]))
    task = task.fitted(train.labels)
    grid = Grid(learning_rates=(0.001, 0.1), weight_decays=(0.0,), label_smoothings=(0.0,), seeds=(0,))
    sweep = sweep_heads(train, validation, task, grid, epochs=30, batch_size=12)
    best, worst = sweep.candidates
    assert best.learning_rate == 0.1
    assert (best.score < worst.score) == sweep.metric.lower_is_better
    outputs = validation.features @ best.arrays[KERNEL] + best.arrays[BIAS]
    scores = task.scores(task.predictions(outputs), validation.labels)
    assert best.score == pytest.approx(scores[sweep.metric.name], rel=1e-3)
    assert best.loss == pytest.approx(scores[task.objective.name], rel=1e-3)
