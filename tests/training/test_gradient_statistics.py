import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.freezing import Phase
from transfer_jax.freezing.freeze_check import array_hashes
from transfer_jax.report.progress import Silent
from transfer_jax.training.gradient_statistics import STATISTICS, by_block, multipliers, signal_to_noise
from transfer_jax.training.phase_measurements import measure_gradients, measure_plasticity
from transfer_jax.training.phase_trainer import PhaseTrainer
from transfer_jax.training.state import named_leaves

PHASE = Phase(
    name="only", train="top(1)", epochs=2, learning_rate=0.1, optimizer="sgd", momentum=0.0, cache="off"
)


@pytest.fixture
def trainer(make_run):
    run = make_run(PHASE)
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent())
    for _ in zip(trainer.train(iter(trainer.data.train), 0), range(2), strict=False):
        pass
    return trainer


def test_statistics_by_hand(trainer):
    found = measure_gradients(trainer, trainer.parts.rates(2), 1)
    assert set(found) == set(STATISTICS)
    batch = next(iter(trainer.data.train))
    model_loss = trainer.programs.functions["step"]  # one step of plain gradient descent shows the gradient
    rates = {block: np.float32(1.0) for block in ("top", "head")}
    after, _ = model_loss(trainer.state, trainer.frozen, {k: batch[k] for k in ("image", "label")}, rates)
    for path, value in trainer.state.trainable.items():
        grad = np.asarray(value - after.trainable[path], np.float64)
        size = np.linalg.norm(value)
        assert found["grad_norm"][path] == pytest.approx(np.linalg.norm(grad), rel=1e-3)
        assert found["rgn"][path] == pytest.approx(np.linalg.norm(grad) / size, rel=1e-3)
        assert found["update"][path] == pytest.approx(
            float(trainer.parts.rates(2)[path.split("/")[-3] if "top" in path else "head"])
            * np.linalg.norm(grad)
            / size,
            rel=1e-3,
        )
        moved = np.linalg.norm(value - trainer.run.arrays[path])
        assert found["distance"][path] == pytest.approx(moved / size, rel=1e-4)
        assert moved > 0


def test_several_batches_are_averaged(trainer):
    one, three = (measure_gradients(trainer, trainer.rates, count)["grad_norm"] for count in (1, 3))
    assert one.keys() == three.keys()
    assert one != three


def test_measurements_do_not_change_the_state(trainer):
    before = array_hashes(named_leaves(trainer.state)), array_hashes(trainer.frozen)
    first = measure_gradients(trainer, trainer.rates, 2), measure_plasticity(trainer)
    assert (measure_gradients(trainer, trainer.rates, 2), measure_plasticity(trainer)) == first
    assert (array_hashes(named_leaves(trainer.state)), array_hashes(trainer.frozen)) == before


def test_plasticity_is_zero_at_first_and_grows(make_run):
    run = make_run(PHASE)
    trainer = PhaseTrainer(run, run.parts(0), run.arrays, Silent())
    assert measure_plasticity(trainer) == pytest.approx({"top": 0.0}, abs=1e-5)
    list(trainer.train(iter(trainer.data.train), 0))
    assert 1e-4 < measure_plasticity(trainer)["top"] < 1


def test_signal_to_noise_by_hand():
    grad = jnp.array([[1.0, 3.0], [2.0, 2.0]])
    # the variance over the outputs is 2 in the first row and 0 in the second
    expected = np.mean([1 / 2, 9 / 2, 4 / 1e-8, 4 / 1e-8])
    assert float(signal_to_noise(grad)) == pytest.approx(expected, rel=1e-5)
    assert float(signal_to_noise(jnp.ones((3, 1)))) == np.inf


@pytest.mark.parametrize(
    ("statistic", "values", "expected"),
    [
        ("rgn", {"a/conv/kernel": 0.5, "a/norm/scale": 9.0, "head/kernel": 2.0}, [0.25, 0.0, 1.0]),
        ("rgn", {"a/conv/kernel": 0.5, "a/norm/scale": 9.0, "head/bias": 1e30}, [1.0, 0.0, 1.0]),
        ("snr", {"a/conv/kernel": 0.94, "a/norm/scale": 9.0, "head/kernel": 0.95}, [0.0, 0.0, 1.0]),
    ],
)
def test_multipliers_by_hand(statistic, values, expected):
    assert list(multipliers(statistic, {statistic: values}).values()) == expected


def test_norms_of_blocks_join_and_ratios_are_averaged():
    values = {"backbone/a/x/kernel": 3.0, "backbone/a/y/kernel": 4.0, "head/kernel": 2.0}
    found = by_block({"grad_norm": values, "rgn": values})
    assert found == {"grad_norm": {"a": 5.0, "head": 2.0}, "rgn": {"a": 3.5, "head": 2.0}}


def test_the_measured_program_differentiates_the_trainable_part_only(trainer):
    arguments = (
        trainer.state,
        trainer.frozen,
        trainer.sample(1),
        trainer.rates,
        trainer.run.pretrained(trainer.state.trainable),
    )
    shapes = jax.eval_shape(trainer.programs.functions["measure"], *arguments)
    assert set(shapes["grad_norm"]) == set(trainer.state.trainable)
