"""All trackers of a run, of which none can end it."""

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfer_jax.report.trackers import mlflow_run, tensorboard_run, trackio_run, wandb_run
from transfer_jax.report.trackers.tracker import Tracker, scalars
from transfer_jax.storage import workdir_files
from transfer_jax.storage.atomic_write import write_text

_LOG = logging.getLogger(__name__)

Opener = Callable[[Path, Mapping[str, Any], str | None], Tracker]
"""From the workdir, the config and the run's id, None for a new run."""

TRACKERS: dict[str, tuple[str, Opener]] = {
    "tensorboard": ("tensorboardX", tensorboard_run.open_run),
    "wandb": ("wandb", wandb_run.open_run),
    "mlflow": ("mlflow", mlflow_run.open_run),
    "trackio": ("trackio", trackio_run.open_run),
}
"""By name: the package that must be there, and what opens a run."""


def check_installed(names: Sequence[str]) -> None:
    """Checks that the packages of trackers are there, without loading them.

    Raises:
        ModuleNotFoundError: If one is not; says how to install it.
    """
    for name in names:
        package, _ = TRACKERS[name]
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(
                f"the tracker {name!r} needs the package {package}: pip install 'transfer_jax[{name}]'"
            )


class Trackers:
    """The trackers of a run.

    One that fails is warned of, once, and told nothing more. What a run that goes on does again, its trackers
    are not told again.

    Args:
        names: Which, of `TRACKERS`.
        workdir: The run's folder.
        config: What the run was asked for, as JSON values.
        resumed: Whether the run goes on; then a tracker that cannot be reached is only warned of.

    Raises:
        ConnectionError: If a tracker cannot be opened at the start of a run.
    """

    def __init__(
        self, names: Sequence[str], workdir: Path, config: Mapping[str, Any], *, resumed: bool = False
    ) -> None:
        self._open: dict[str, Tracker] = {}
        self._new: list[str] = []
        self._told: set[tuple[Any, ...]] = set()
        known = _known(workdir)
        for name in names:
            try:
                self._open[name] = TRACKERS[name][1](workdir, config, known.get(name))
            except Exception as error:
                if not resumed:
                    raise ConnectionError(
                        f"the tracker {name!r} cannot be opened: {error or type(error).__name__}"
                    ) from error
                self._warn(name, error)
        self._new = [name for name in self._open if name not in known]
        if self._new:
            ids = {name: tracker.id for name, tracker in self._open.items()}
            write_text(workdir / workdir_files.TRACKERS, json.dumps({**known, **ids}, indent=1))

    def catch_up(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Takes the lines of metrics that are there from before; trackers new to the run are told them."""
        for line in lines:
            self._told.add(_key(line))
            self._tell(self._new, line)
        self._new = []

    def line(self, line: Mapping[str, Any]) -> None:
        """Tells a line of metrics, if it is not one that was told before."""
        if _key(line) not in self._told:
            self._tell([*self._open], line)

    def finish(self, step: int, scores: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        """Tells the scores at the end, as `final/…`, and shows the pictures."""
        values = scalars(scores, "final")
        for name in [*self._open]:
            self._try(name, lambda tracker: tracker.log(step, values))
            for path in pictures:
                self._try(name, lambda tracker, path=path: tracker.log_image(step, path))

    def close(self, *, finished: bool) -> None:
        """Lets each send what is left."""
        for name in [*self._open]:
            self._try(name, lambda tracker: tracker.close(finished=finished))
        self._open = {}

    def _tell(self, names: Sequence[str], line: Mapping[str, Any]) -> None:
        rest = {name: value for name, value in line.items() if name not in ("step", "kind")}
        values = scalars(rest, line["kind"])
        if values:
            for name in names:
                self._try(name, lambda tracker: tracker.log(line["step"], values))

    def _try(self, name: str, act: Callable[[Tracker], None]) -> None:
        tracker = self._open.get(name)
        if tracker is None:
            return
        try:
            act(tracker)
        except Exception as error:  # Whatever a tracker does wrong, the run is worth more.
            del self._open[name]
            self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        _LOG.warning(
            "the tracker %s fails, and is told nothing more; the run goes on: %s",
            name,
            " ".join(str(error).split()) or type(error).__name__,
        )


def _key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return line["step"], line["kind"], line.get("phase")


def _known(workdir: Path) -> dict[str, str]:
    """The ids from before; none where the file is not there, or damaged."""
    try:
        return json.loads((workdir / workdir_files.TRACKERS).read_text())
    except (FileNotFoundError, ValueError):
        return {}
