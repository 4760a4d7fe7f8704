"""Loops of one's own over models of somebody else: killed in each phase, they end like one that is not."""

import ast
import functools
import runpy
import signal
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

import transfer_jax as tj
from transfer_jax.freezing import leaves_by_path

FOLDER = Path(__file__).parent / "own_models"
LOOPS = {"linen": FOLDER / "linen_loop.py", "nnx": FOLDER / "nnx_loop.py"}
PHASES = 3
TRAINED = {
    "linen": ("BatchNorm_2/", "Conv_2/", "Conv_3/", "classifier/"),
    "nnx": ("layers/1/", "layers/2/", "layers/3/", "out/"),
}
"""The blocks that some phase trains."""


@pytest.mark.parametrize("name", LOOPS)
def test_loop_is_short(name: str) -> None:
    body = ast.parse(LOOPS[name].read_text()).body
    written = [each for each in body if isinstance(each, (ast.Assign, ast.FunctionDef))]
    assert sum((each.end_lineno or 0) - each.lineno + 1 for each in written) < 30


@pytest.mark.extended
@pytest.mark.parametrize("name", LOOPS)
def test_killed_in_every_phase(name: str, start: Callable, tmp_path: Path) -> None:
    script, killed = LOOPS[name], tmp_path / "killed"
    whole = start(script, tmp_path / "whole")
    assert whole.code == 0, whole.err
    for phase in range(PHASES):
        stopped = start(FOLDER / "stopped_loop.py", script, phase, 3, killed)
        assert stopped.code == -signal.SIGKILL, stopped.err
        assert not (killed / "final.safetensors").exists()
    finished = start(script, killed)
    assert finished.code == 0, finished.err
    one, other = (load_file(folder / "final.safetensors") for folder in (tmp_path / "whole", killed))
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(array, other[path], err_msg=path)

    initial = initial_params(name)
    changed = {path for path in one if not np.array_equal(one[path], initial[path])}
    assert changed == {path for path in one if path.startswith(TRAINED[name])}


def initial_params(name: str) -> dict[str, jax.Array]:
    """Returns the parameters before the first phase, by path."""
    model = runpy.run_path(str(FOLDER / f"{name}_network.py"))["pretrained"]()
    return leaves_by_path(model[1]["params"] if name == "linen" else tj.nnx_function(model).params)


SIZES = (16, 8, 6, 3)
PARAMS = {
    name: {"kernel": jax.random.normal(jax.random.key(index), SIZES[index : index + 2])}
    for index, name in enumerate(("body", "top", "head"))
}
DATA = {"x": jax.random.normal(jax.random.key(3), (24, 16)), "label": jnp.arange(24) % 3}
STATE = {"mean": jnp.zeros(3)}
SELECTORS = ("head", "top(1)", "head")


class CrashError(Exception):
    pass


def network(params, state, batch, key):
    x = jnp.tanh(jnp.tanh(batch["x"] @ params["body"]["kernel"]) @ params["top"]["kernel"])
    x = jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x, 0.0)
    logits = x @ params["head"]["kernel"]
    return logits, {"mean": 0.9 * state["mean"] + 0.1 * logits.mean(0)}


def loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


@functools.cache
def phase_programs(phase: int) -> tuple:
    """Returns the labels, the optimizer, the split and the compiled step of a phase."""
    labels = tj.labels(PARAMS, SELECTORS[phase], [*PARAMS])
    optimizer = tj.multi_transform(dict.fromkeys(PARAMS, optax.adam(0.01)), labels)
    split = tj.split_frozen(network, PARAMS, labels, DATA, key=jax.random.key(0), state=STATE)
    step = tj.make_train_step(loss, optimizer, split, ema_decay=0.9)
    return labels, optimizer, split, jax.jit(step, donate_argnums=0)


def train(directory: Path, crash: tuple[int, int] | None = None) -> dict:
    """Trains the network in three phases, and returns its parameters and its state.

    Args:
        directory: The folder of the checkpoints.
        crash: Phase and step before which the loop ends with an error.
    """
    initial = jax.tree.map(jnp.copy, PARAMS)  # As a new process reads them.
    checkpoints = tj.LoopCheckpoints(directory, initial)
    state, frozen = None, initial
    for phase, _ in checkpoints.remaining(SELECTORS):
        labels, optimizer, split, step = phase_programs(phase)
        state, frozen = tj.next_phase(state, frozen, labels, optimizer, model_state=STATE, ema=True)
        state, frozen = checkpoints.restore(state, frozen, phase)
        features = split.prefix(frozen, DATA, state.model_state)
        with tj.frozen_unchanged(frozen):
            for number in range(int(state.step), 4):
                if (phase, number) == crash:
                    raise CrashError
                rows = np.random.default_rng((phase, number)).permutation(24)[:8]
                batch, inputs = jax.tree.map(lambda array, rows=rows: array[rows], (DATA, features))
                state, _ = step(state, frozen, inputs, batch)
                if number % 2 == 0:
                    checkpoints.save(state, frozen, phase)
        checkpoints.save(state, frozen, phase)
    assert state is not None
    return {"params": tj.combine(state.trainable, frozen), "ema": state.ema, "state": state.model_state}


def test_interrupted_in_every_phase(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    for crash in ((0, 2), (1, 0), (1, 3), (2, 1), (2, 3)):
        with pytest.raises(CrashError):
            train(tmp_path / "killed", crash)
    found = train(tmp_path / "killed")
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found["params"]["body"]["kernel"], PARAMS["body"]["kernel"])
    assert np.any(found["params"]["top"]["kernel"] != PARAMS["top"]["kernel"])
