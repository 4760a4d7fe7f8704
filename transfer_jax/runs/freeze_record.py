"""The freeze record of a phase: hashes of frozen arrays, trained blocks and their learning rates."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transfer_jax.freezing.freeze_check import FreezeRecord
from transfer_jax.freezing.labels import trainable_blocks
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text
from transfer_jax.storage.file_names import file_name
from transfer_jax.training.phase_trainer import PhaseTrainer


def span(trainer: PhaseTrainer, first: int, last: int, record: FreezeRecord) -> dict[str, Any]:
    """Returns the entry of the freeze record for a part of a phase with one frozen depth.

    Args:
        trainer: The phase at this frozen depth.
        first: The first step of the part.
        last: The step after its last one.
        record: The check of all frozen parameters and statistics over the part.
    """
    parts, state = trainer.parts, trainer.state
    ends = {"first": parts.rates(first), "last": parts.rates(max(first, last - 1))}
    return {
        "steps": [first, last],
        "frozen_depth": parts.frozen_depth,
        "boundary": trainer.data.start,
        "trained": {
            "blocks": list(trainable_blocks(parts.labels)),
            "parameters": sum(array.size for array in state.trainable.values()),
            "statistics": len(state.model_state),
        },
        "rates": {
            name: {block: float(rate) for block, rate in rates.items()} for name, rates in ends.items()
        },
        "optimizer_bytes": trainer.optimizer_bytes,
        "frozen": record.summary(),
    }


def write_freeze_record(
    workdir: Path,
    trainer: PhaseTrainer,
    spans: list[dict[str, Any]],
    frozen: Mapping[str, str],
    kept: Mapping[str, Any] | None = None,
) -> Path:
    """Writes the freeze record of a finished phase, and returns its path.

    The file is `certificates/NN-NAME.json`, with the number of the phase, from 1, and its name, as far as
    file systems allow that name.

    Args:
        workdir: The run's folder.
        trainer: The phase at its end.
        spans: An entry for each part of the phase; see `span`.
        frozen: `array_hashes` of the arrays that were frozen at the end.
        kept: The epoch whose arrays the phase keeps, if it is not the last one: its `epoch`, 0 for the start
            of the phase, and its `step`.
    """
    parts = trainer.parts
    folder = workdir / workdir_files.FREEZE_RECORDS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{parts.index + 1:02}-{file_name(parts.phase.name)}.json"
    content = {"phase": parts.phase.name, "train": parts.phase.train, "spans": spans, "frozen": dict(frozen)}
    if kept is not None:
        content["kept"] = {"epoch": kept["epoch"], "step": kept["step"]}
    write_text(path, json.dumps(content, indent=1))
    return path
