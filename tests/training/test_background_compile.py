import collections
import dataclasses

import jax
import pytest

from transfer_jax.freezing import Phase
from transfer_jax.report.progress import Silent
from transfer_jax.training.background_compile import BackgroundCompiler, compile_phase
from transfer_jax.training.phase_trainer import PhaseTrainer

FIRST = Phase(name="first", train="head", epochs=1, learning_rate=0.01)
PHASES = {
    "features": Phase(name="next", train="top(1)", epochs=1, learning_rate=0.01),
    "views": Phase(name="next", train="top(2)", epochs=2, learning_rate=0.01, augment=True, views=2),
    "images": Phase(name="next", train="all_()", epochs=1, learning_rate=0.01, norm="train", augment=True),
    "pull": Phase(name="next", train="top(2)", epochs=1, learning_rate=0.01, l2_sp=0.1, clip_norm=1.0),
    "statistic": Phase(name="next", train="top(2)", epochs=1, learning_rate=0.01, statistic="rgn"),
    "low rank": Phase(name="next", train="head", epochs=1, learning_rate=0.01, lora="role('kernel')"),
}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that receives the text of each program compiled from now on."""
    texts, compile = [], jax.stages.Lowered.compile

    def recorded(self, *args, **kwargs):
        texts.append(self.as_text())
        return compile(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", recorded)
    monkeypatch.setattr("transfer_jax.training.compile._recent", collections.OrderedDict())
    return texts


@pytest.mark.parametrize("name", PHASES)
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.extended)])
def test_a_phase_compiled_ahead_compiles_nothing_more(make_run, compiled, name, precision):
    run = make_run(FIRST, PHASES[name], ema_decay=0.9, precision=precision)
    parts = run.parts(1)
    compile_phase(run, parts)
    ahead = len(compiled)
    assert ahead >= 2
    trainer = PhaseTrainer(run, parts, run.arrays, Silent())
    multipliers = None if name != "statistic" else dict.fromkeys(trainer.state.trainable, 0.5)
    for metrics in trainer.train(iter(trainer.data.train), 0, lambda step: multipliers):
        assert metrics["loss"] > 0
    assert trainer.predict().shape == (12, 3)
    assert len(compiled) == ahead


def test_the_config_enables_the_background_compiler(make_run, compiled):
    run = make_run(FIRST, PHASES["features"])
    for enabled in (False, True):
        ahead = BackgroundCompiler(
            dataclasses.replace(run, config=dataclasses.replace(run.config, compile_ahead=enabled))
        )
        ahead.start(run.parts(1))
        ahead.wait()
        assert bool(compiled) == enabled


def test_an_error_in_the_background_is_suppressed(make_run, monkeypatch):
    def broken(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr("transfer_jax.training.background_compile.compile_phase", broken)
    run = make_run(FIRST, compile_ahead=True)
    ahead = BackgroundCompiler(run)
    ahead.start(run.parts(0))
    ahead.wait()
