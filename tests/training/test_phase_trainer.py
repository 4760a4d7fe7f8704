import dataclasses

import jax
import numpy as np
import pytest

from transfer_jax.data import Augmentation
from transfer_jax.distributed.agreement import FlagAgreement
from transfer_jax.freezing import FrozenChangedError, Phase
from transfer_jax.freezing.freeze_check import array_hashes, check_unchanged
from transfer_jax.models.paths import block_of
from transfer_jax.report.progress import Silent
from transfer_jax.tasks.top_predictions import TopPredictions
from transfer_jax.training.phase_trainer import NonFiniteLossError, PhaseTrainer

CASES = [  # selector, norm, blocks whose statistics change
    ("head", "frozen", set()),
    ("head", "train", set()),
    ("top(1)", "frozen", set()),
    ("top(1)", "train", {"top"}),
    ("from_('blocks.1')", "train", {"blocks.1", "blocks.11", "top"}),
    ("blocks('blocks.1')", "train", {"blocks.1"}),
    ("blocks('stem') | head", "train", {"stem"}),
    ("role('norm') & ~blocks('top')", "frozen", set()),
    ("match('blocks.11/conv') | head", "train", {"blocks.11"}),
    ("top(2) & ~role('bias')", "frozen", set()),
    ("all_()", "train", {"stem", "blocks.1", "blocks.11", "top"}),
]


def phase(train: str = "head", **changes) -> Phase:
    return Phase(
        **{"name": "only", "train": train, "epochs": 1, "learning_rate": 0.01, "cache": "off", **changes}
    )


def trainer_of(run, index: int = 0) -> PhaseTrainer:
    return PhaseTrainer(run, run.parts(index), run.arrays, Silent())


def trained(run) -> tuple[PhaseTrainer, list[dict[str, float]]]:
    trainer = trainer_of(run)
    return trainer, list(trainer.train(iter(trainer.data.train), 0))


@pytest.mark.parametrize(("train", "norm", "moving"), CASES)
def test_frozen_arrays_stay_bit_identical_and_all_others_change(make_run, train, norm, moving):
    run = make_run(phase(train, norm=norm, weight_decay=0.1), ema_decay=0.5)
    parts = run.parts(0)
    before = array_hashes(run.arrays)
    trainer, metrics = trained(run)
    assert len(metrics) == parts.steps == 3
    after = array_hashes(trainer.all_arrays())
    chosen = {path for path, label in parts.labels.items() if label != "frozen"}
    stats = {path for path in run.arrays if path not in run.params}
    expected = chosen | {path for path in stats if block_of(path) in moving}
    assert {path for path in before if before[path] != after[path]} == expected == parts.changes
    assert set(trainer.evaluated_arrays()) == set(run.arrays)
    # The state, which checkpoints and the optimizer store, has the trainable part only.
    trainable_bytes = sum(run.arrays[path].nbytes for path in chosen)
    counters = 4 * len({block_of(path) for path in chosen})
    assert trainer.optimizer_bytes == 2 * trainable_bytes + counters
    assert set(trainer.state.trainable) == set(trainer.state.ema) == chosen
    assert set(trainer.state.model_state) == expected - chosen


def test_an_altered_frozen_array_is_named(make_run):
    trainer = trainer_of(make_run(phase("top(1)")))
    before = array_hashes(trainer.frozen)
    path = "backbone/blocks.1/depthwise/norm/var"
    trainer.frozen[path] = trainer.frozen[path].at[3].multiply(1 + 1e-7)
    with pytest.raises(FrozenChangedError, match=f"^1 frozen array changed, first {path}$"):
        check_unchanged(before, array_hashes(trainer.frozen))


def test_the_arrays_of_the_run_survive_the_donated_state(make_run):
    run = make_run(phase("all_()"))
    trained(run)
    for path, array in run.arrays.items():
        assert not array.is_deleted(), path


@pytest.mark.parametrize(
    ("train", "norm", "boundary"),
    [("head", "train", "pre_logits"), ("top(2)", "frozen", "blocks.1"), ("role('norm')", "train", None)],
)
def test_split_of_a_phase(make_run, train, norm, boundary):
    parts = make_run(phase("head"), phase(train, name="second", norm=norm, epochs=4)).parts(1)
    assert (parts.index, parts.phase.name, parts.boundary) == (1, "second", boundary)
    assert (parts.steps_per_epoch, parts.steps) == (36 // 12, 4 * 3)


def test_training_learns_the_colours(make_run):
    run = make_run(phase("top(1)", epochs=10, learning_rate=0.02))
    trainer, metrics = trained(run)
    assert metrics[-1]["loss"] < 0.5 * metrics[0]["loss"]
    assert (trainer.predict().argmax(-1) == run.evaluation.labels).mean() == 1
    assert trainer.compile_seconds > 0
    step = trainer.programs.step
    assert step is not None
    assert step.flops
    assert step.peak_bytes
    assert step.peak_bytes > trainer.optimizer_bytes


@pytest.mark.parametrize("train", ["head", "top(1)"])
def test_cached_features_train_the_same_network(make_run, train):
    results = [trained(make_run(phase(train, cache=cache, epochs=2))) for cache in ("off", "require")]
    assert [trainer.data.start for trainer, _ in results] == [None, phase_boundary(train)]
    for live, cached in zip(results[0][1], results[1][1], strict=True):
        assert cached == pytest.approx(live, rel=1e-3)
    np.testing.assert_allclose(results[1][0].predict(), results[0][0].predict(), rtol=1e-3, atol=1e-5)
    live, cached = (trainer.all_arrays() for trainer, _ in results)
    for path in live:
        np.testing.assert_allclose(cached[path], live[path], rtol=1e-5, atol=1e-5, err_msg=path)


@pytest.mark.parametrize(("stored", "tolerance"), [("float16", 5e-3), ("bfloat16", 2e-2), ("int8", 3e-2)])
def test_features_of_fewer_bits_train_nearly_the_same_network(make_run, stored, tolerance):
    settings = phase("top(1)", cache="require", epochs=2)
    exact, rounded = (trained(make_run(settings, feature_precision=form)) for form in ("auto", stored))
    assert exact[1] != rounded[1]
    for one, other in zip(exact[1], rounded[1], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=tolerance)
    np.testing.assert_allclose(rounded[0].predict(), exact[0].predict(), atol=tolerance)


@pytest.mark.parametrize("cache", ["off", "require"])
def test_the_prefix_has_a_precision_of_its_own(make_run, cache):
    exact, mixed, half = (
        trained(make_run(phase("top(1)", cache=cache, epochs=2), **precision))[1]
        for precision in ({}, {"prefix_precision": "bfloat16"}, {"precision": "bfloat16"})
    )
    assert len({metrics[0]["loss"] for metrics in (exact, mixed, half)}) == 3
    for one, other in zip(exact, mixed, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-2)


def phase_boundary(train: str) -> str:
    return {"head": "pre_logits", "top(1)": "blocks.11"}[train]


def test_the_rate_of_the_head_is_reported(make_run):
    run = make_run(phase("top(1)", epochs=2, shape="linear", layer_decay=0.5))
    _, metrics = trained(run)
    assert [found["learning_rate"] for found in metrics] == pytest.approx(
        [0.01 * (6 - k) / 6 for k in range(6)]
    )
    assert set(metrics[0]) == {"loss", "accuracy", "grad_norm", "learning_rate"}


def test_a_phase_resumes_in_the_middle(make_run):
    run = make_run(phase("top(1)", epochs=2, norm="train"), ema_decay=0.9)
    whole, metrics = trained(run)
    trainer = trainer_of(run)
    batches = iter(trainer.data.train)
    steps = trainer.train(batches, 0)
    first = [next(steps) for _ in range(2)]
    state = batches.get_state()
    again = trainer_of(run)
    again.state = jax.tree.map(lambda x: x + 0, trainer.state)
    batches = iter(again.data.train)
    batches.set_state(state)
    assert first + list(again.train(batches, 2)) == metrics
    assert array_hashes(again.all_arrays()) == array_hashes(whole.all_arrays())
    assert array_hashes(again.evaluated_arrays()) == array_hashes(whole.evaluated_arrays())


def test_a_loss_that_is_not_finite_names_the_step_and_the_images(make_run):
    run = make_run(phase("head", optimizer="sgd", learning_rate=1e38, epochs=2))
    trainer = trainer_of(run)
    batches = list(zip(iter(trainer.data.train), range(6), strict=False))
    with pytest.raises(NonFiniteLossError) as error:
        list(trainer.train(iter(trainer.data.train), 0))
    message = str(error.value)
    step = next(step for step in range(6) if f"at step {step} of phase 'only'" in message)
    indices = batches[step][0]["index"]
    assert ", ".join(run.train.names[index] for index in indices[:8]) + " …." in message
    assert "lower learning rate" in message


@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_only_phases_that_augment_mix(make_run, mixing):
    losses = {}
    for augment in (False, True):
        for augmentation in (
            Augmentation(crop_scale=None, flip_horizontal=False),
            Augmentation(crop_scale=None, flip_horizontal=False, **mixing),
        ):
            run = make_run(phase("head", augment=augment), augmentation=augmentation)
            losses[augment, augmentation.mixup + augmentation.cutmix] = trained(run)[1][0]["loss"]
    assert losses[False, 0] == losses[False, 1] == losses[True, 0] != losses[True, 1]


def test_options_of_the_config_reach_the_step(make_run):
    plain = trained(make_run(phase("head")))[1][0]
    changes = [{"label_smoothing": 0.5}, {"accumulate": 3}, {"precision": "bfloat16"}]
    smoothed, accumulated, half = (trained(make_run(phase("head"), **change))[1][0] for change in changes)
    assert smoothed["loss"] != pytest.approx(plain["loss"], rel=0.01)
    assert accumulated["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert plain["loss"] != half["loss"] == pytest.approx(plain["loss"], rel=0.02)
    run = make_run(phase("head"), class_weights="balanced")
    few = dataclasses.replace(run, train=run.train.subset([0, 1, 2, *range(3, 36, 3)]))
    assert len(set(few.class_weights().tolist())) > 1
    assert (
        trained(dataclasses.replace(few))[1][0]["loss"]
        != trained(dataclasses.replace(few, config=dataclasses.replace(run.config, class_weights="none")))[1][
            0
        ]["loss"]
    )


def test_phases_of_the_same_structure_share_a_program(make_run):
    changes = [{}, {"learning_rate": 0.5, "shape": "linear", "layer_decay": 0.5}, {"train": "top(2)"}]
    phases = [
        phase(**{"train": "top(1)", "name": str(index), **change}) for index, change in enumerate(changes)
    ]
    run, programs = make_run(*phases), []
    for index in range(3):
        trainer = trainer_of(run, index)
        next(trainer.train(iter(trainer.data.train), 0))
        programs.append(trainer.programs.compiled("step").run)
    assert programs[0] is programs[1]
    assert programs[1] is not programs[2]


@pytest.mark.parametrize(("raised_at", "read_after"), [(0, 3), (2, 5)])
def test_all_metrics_are_read_before_the_next_step_once_a_flag_is_raised(make_run, raised_at, read_after):
    trainer = trainer_of(make_run(phase("head", epochs=4)))
    reads = iter(range(100))
    agreement = FlagAgreement(lambda: {"stop": next(reads) == raised_at})
    unread = []
    for _ in trainer.train(iter(trainer.data.train), 0, agreement=agreement, needs_state=lambda step: False):
        unread.append((trainer.unread, agreement.agreed["stop"]))
    assert len(unread) == trainer.parts.steps == 12
    assert [count for count, _ in unread[:raised_at]] == [2] * raised_at
    assert unread[raised_at] == (2, True)
    assert unread.index((0, False)) + 1 == read_after


@pytest.mark.parametrize(("cache", "strategy"), [("off", "mesh"), ("require", "jit")])
def test_only_the_most_probable_classes_of_large_sets_leave_the_devices(
    make_run, monkeypatch, cache, strategy
):
    run = make_run(phase(cache=cache), batch_size=8, strategy=strategy)
    trainer = trainer_of(run)
    whole, labels = trainer.predict(), run.evaluation.labels
    assert len(labels) % 8  # The last batch is filled.
    np.testing.assert_array_equal(np.concatenate([*trainer.all_predictions("validation")]), whole)
    monkeypatch.setattr("transfer_jax.training.phase_trainer.keeps_all", lambda examples, classes: False)
    monkeypatch.setattr(trainer, "_outputs", None)
    found, known = trainer.predict(), TopPredictions.of(whole, labels)
    np.testing.assert_array_equal(found.classes, known.classes)
    np.testing.assert_allclose(found.probabilities, known.probabilities, rtol=1e-4)
    np.testing.assert_allclose(found.log_truth, known.log_truth, rtol=1e-3, atol=1e-5)
