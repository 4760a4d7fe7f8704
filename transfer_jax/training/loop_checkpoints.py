"""Checkpoints of a loop of your own: the training state, the phase and the position in the data."""

import base64
import json
import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import jax.numpy as jnp

from transfer_jax.distributed import processes
from transfer_jax.freezing.freeze_check import array_hashes, combined_hash
from transfer_jax.freezing.trees import leaves_by_path, map_by_path
from transfer_jax.storage.checkpoints import Checkpoints, CorruptCheckpointError, SavedCheckpoints
from transfer_jax.storage.remote import display_path, local_path, pull, push
from transfer_jax.training.state import TrainState, named_leaves, restore_leaves

Phase = TypeVar("Phase")
Data = TypeVar("Data", bound=Any)
_logger = logging.getLogger(__name__)


class LoopCheckpoints:
    """Checkpoints of a loop over phases, which resumes from them bit for bit after it was killed.

    A checkpoint has the training state of the current phase, the phase, the position in the data, and the
    parameters that earlier phases changed and this one keeps frozen. All other parameters are those of
    `params`, and are not stored again. A checkpoint is complete or does not count. The newest one without a
    damaged file is used. One loop at a time may use a directory.

    Example:
        >>> checkpoints = LoopCheckpoints("runs/mine", params)
        >>> state, frozen = None, params
        >>> for phase, selector in checkpoints.remaining(selectors):
        ...     state, frozen = next_phase(state, frozen, labels(params, selector), optimizer)
        ...     state, frozen = checkpoints.restore(state, frozen, phase)
        ...     data = checkpoints.restore_data(iter(dataset), phase)
        ...     for batch in data:
        ...         state, metrics = step(state, frozen, {}, batch)
        ...         if state.step % 100 == 0:
        ...             checkpoints.save(state, frozen, phase, data)

    Args:
        directory: The folder, local or in object storage (`gs://…`, `s3://…`); it is created if needed.
        params: All parameters before the first phase, such as pretrained ones. They are compared by identity
            with those that are saved, and must be the same when the loop resumes.
        keep: Number of the newest checkpoints to keep.

    Attributes:
        phase: Index of the phase of the checkpoint to resume from; 0 if there is none.
        steps: Number of steps in that phase.
        data: Position in the data that was saved with it; None if there is none.

    Raises:
        ValueError: If the loop in the directory started with other parameters.
    """

    phase: int
    steps: int
    data: Any

    def __init__(self, directory: str | os.PathLike[str], params: Any, *, keep: int = 2) -> None:
        self._folder = local_path(directory)
        pull(self._folder)
        self._checkpoints = SavedCheckpoints(self._folder, keep=keep)
        self._initial = leaves_by_path(params)
        self._start = combined_hash(array_hashes(params))
        self._number = self._checkpoints.latest() or 0
        self._newest, progress = self._newest_valid()
        if progress.get("start", self._start) != self._start:
            raise ValueError(
                f"the loop in {display_path(self._folder)} started with other parameters; "
                "pass the same ones, or use another directory"
            )
        self._use(progress)

    def remaining(self, phases: Iterable[Phase]) -> Iterator[tuple[int, Phase]]:
        """Yields the phases that are not finished, each with its index; the first one may be resumed.

        Args:
            phases: All phases of the loop, as objects of any kind.
        """
        first = self.phase
        yield from ((index, phase) for index, phase in enumerate(phases) if index >= first)

    def save(self, state: TrainState, frozen: Any, phase: int = 0, data: Any = None) -> None:
        """Saves a checkpoint, and waits until it is on disk.

        Args:
            state: The training state.
            frozen: The frozen parameters of the phase.
            phase: Index of the phase.
            data: An iterator with `get_state`, such as one of grain, or its position as JSON values or bytes.

        Raises:
            TypeError: If the position is of another type.
            OSError: If writing fails, as on a full disk. Earlier checkpoints remain.
        """
        leaves = leaves_by_path(frozen)
        changed = {path: jnp.asarray(leaf) for path, leaf in leaves.items() if self._is_changed(path, leaf)}
        progress = {"phase": phase, "steps": int(state.step), "data": _to_json(data), "start": self._start}
        self._number += 1
        self._checkpoints.save(self._number, {"state": named_leaves(state), "frozen": changed}, progress)
        self._checkpoints.wait()
        self._newest = self._number
        self._use(progress)
        if processes.is_first():
            push(self._folder)

    def restore(self, state: TrainState, frozen: Any, phase: int = 0) -> tuple[TrainState, Any]:
        """Returns the state and the frozen parameters of the checkpoint, if it is of this phase.

        Without a checkpoint of this phase, the phase is at its start, and the arguments are returned.

        Args:
            state: A state of the phase, whose arrays are replaced; see `next_phase`.
            frozen: Its frozen parameters; those that earlier phases changed are replaced.
            phase: Index of the phase.

        Raises:
            ValueError: If the checkpoint is of a later phase, or of another state.
        """
        if self._newest is None or phase > self.phase:
            return state, frozen
        if phase < self.phase:
            raise ValueError(
                f"the checkpoint is of phase {self.phase}; skip phase {phase}, for example with "
                "`for phase, settings in checkpoints.remaining(phases)`"
            )
        leaves = leaves_by_path(frozen)
        changed = self._checkpoints.names(self._newest, "frozen")
        if not changed <= {*leaves}:
            raise ValueError(
                f"{len(changed - {*leaves})} parameters that earlier phases changed are not frozen, such as "
                f"{min(changed - {*leaves})!r}; use another directory for another schedule"
            )
        template = {path: jnp.asarray(leaves[path]) for path in sorted(changed)}
        restored = self._checkpoints.arrays(self._newest, "frozen", template)
        state = restored_state(self._checkpoints, self._newest, "state", state)
        return state, map_by_path(lambda path, leaf: restored.get(path, leaf), frozen)

    def restore_data(self, data: Data, phase: int = 0) -> Data:
        """Returns an iterator at the position of the checkpoint, if it is of this phase.

        Args:
            data: An iterator with `set_state`, such as one of grain, at its start.
            phase: Index of the phase.
        """
        if self.data is not None and phase == self.phase:
            data.set_state(self.data)
        return data

    def _newest_valid(self) -> tuple[int | None, dict[str, Any]]:
        """Returns the number of the newest checkpoint without a damaged file, and its progress."""
        for number in self._checkpoints.numbers():
            try:
                return number, self._checkpoints.progress(number)
            except CorruptCheckpointError as error:
                _logger.warning("ignoring checkpoint %d of %s: %s", number, self._folder, error)
        return None, {}

    def _use(self, progress: dict[str, Any]) -> None:
        self.phase, self.steps = progress.get("phase", 0), progress.get("steps", 0)
        self.data = _from_json(progress.get("data"))

    def _is_changed(self, path: str, leaf: Any) -> bool:
        """Returns True if a frozen parameter is not the one before the first phase."""
        return leaf is not self._initial.get(path)


def restored_state(checkpoints: Checkpoints, step: int, name: str, template: TrainState) -> TrainState:
    """Returns a state that was saved under a name.

    Args:
        checkpoints: The checkpoints.
        step: The step of the checkpoint.
        name: The name of the state.
        template: A state of the same structure.

    Raises:
        ValueError: If the saved state has other arrays.
    """
    leaves = named_leaves(template)
    saved = checkpoints.names(step, name)
    if saved != set(leaves):
        differing = ", ".join(sorted(saved ^ set(leaves))[:3])
        raise ValueError(
            f"checkpoint {step} has other parameters or another optimizer than this phase: {differing}; "
            "use another directory for another schedule"
        )
    return restore_leaves(template, checkpoints.arrays(step, name, leaves))


def _to_json(data: Any) -> Any:
    """Returns the position in the data as JSON values."""
    position = data.get_state() if hasattr(data, "get_state") else data
    if isinstance(position, bytes):
        return {"bytes": base64.b64encode(position).decode()}
    try:
        json.dumps(position)
    except TypeError as error:
        raise TypeError(
            f"the position in the data is of type {type(position).__name__}, which is not stored ({error}); "
            "pass an iterator with `get_state`, JSON values, or bytes"
        ) from None
    return {"json": position}


def _from_json(saved: Any) -> Any:
    if saved is None:
        return None
    return base64.b64decode(saved["bytes"]) if "bytes" in saved else saved["json"]
