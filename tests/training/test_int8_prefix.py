"""The frozen prefix in int8, on the toy network."""

import jax
import numpy as np
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase
from transfer_jax.nn.int8 import Int8Kernel
from transfer_jax.report.progress import Silent
from transfer_jax.training.background_compile import compiled_step
from transfer_jax.training.feature_extractor import FeatureExtractor
from transfer_jax.training.int8_prefix import calibrate, int8_shapes
from transfer_jax.training.phase_trainer import PhaseTrainer

HEAD = {"name": "a", "train": "head", "epochs": 1, "learning_rate": 1e-2}


class Log(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)


def test_kernels_and_their_error(make_run):
    run = make_run(Phase(**HEAD))
    found = calibrate(run, "pre_logits", run.arrays)
    assert found.images == 36
    assert 0 < found.error < 0.05
    shapes = int8_shapes(run, "pre_logits", run.arrays)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found.kernels) == jax.tree.map(
        lambda x: (x.shape, x.dtype), shapes
    )
    for path, kernel in found.kernels.items():
        assert kernel.values.shape == run.arrays[path].shape
        assert kernel.values.dtype == np.int8
        assert kernel.values.shape[-2] >= 16
        assert "depthwise" not in path
    assert "layers of the frozen part compute in int8: the features of 36 training images are off by" in str(
        found
    )


def test_a_prefix_without_such_layers(make_run):
    run = make_run(Phase(**HEAD))
    with pytest.raises(ValueError, match=r"prefix_precision='int8': no layer of .* up to 'stem' can be"):
        calibrate(run, "stem", run.arrays)


@pytest.mark.parametrize("cache", ["off", "require"])
def test_a_phase_trains_on_it(cache, make_run):
    log = Log()
    run = make_run(Phase(**HEAD, cache=cache), prefix_precision="int8")
    exact = make_run(Phase(**HEAD, cache=cache))
    losses, outputs = [], []
    for each in (run, exact):
        trainer = PhaseTrainer(each, each.parts(0), each.arrays, log)
        (first, *_) = trainer.train(iter(trainer.data.train), 0)
        losses.append(first["loss"])
        outputs.append(trainer.predict())
        assert not any(isinstance(array, Int8Kernel) for array in trainer.evaluated_arrays().values())
    assert len([line for line in log.lines if "compute in int8" in line]) == 1
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert not np.array_equal(*outputs)
    np.testing.assert_allclose(*outputs, atol=0.02)


def test_the_compiled_step_takes_kernels_in_int8(make_run):
    run = make_run(Phase(**HEAD, cache="off"), prefix_precision="int8")
    step = compiled_step(run, run.parts(0))
    frozen = step.run.in_avals[0][1]
    kernels = [each for each in frozen.values() if isinstance(each, Int8Kernel)]
    assert len(kernels) == len(int8_shapes(run, "pre_logits", run.arrays))


def test_features_in_int8_have_a_cache_of_their_own(make_run):
    rows = []
    for precision in ("float32", "int8", "int8"):
        run = make_run(Phase(**HEAD), prefix_precision=precision)
        extractor = FeatureExtractor(run, "pre_logits", run.arrays)
        extractor.extract(run.train, Log(), "features")
        rows.append(extractor.extracted)
    assert rows == [36, 36, 0]


def test_arrays_that_are_sharded_are_refused():
    with pytest.raises(ValueError, match="prefix_precision='int8' needs fsdp=1 and tensor=1, got fsdp=2"):
        TrainConfig(images="x", prefix_precision="int8", strategy="mesh", fsdp=2)
