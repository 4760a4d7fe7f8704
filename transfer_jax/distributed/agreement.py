"""Flags that all processes of a run combine at every training step, without waiting for each other."""

import collections
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transfer_jax.distributed import processes

_DEVICES = "devices"


class FlagAgreement:
    """Flags that are raised for all processes at the same step as soon as one process raises them.

    A process calls `send` for each step that it dispatches, and `receive` when it reads the metrics of that
    step. `send` dispatches a small all-reduce after the step and returns at once; `receive` reads its result,
    which is ready when the step is over. All processes therefore see the same flags at the same step. With
    one process nothing is sent: `receive` calls `flags`.

    Args:
        flags: Returns the flags of this process by name; the names never change.

    Attributes:
        agreed: The flags that `receive` returned last; empty before.
    """

    def __init__(self, flags: Callable[[], Mapping[str, bool]]) -> None:
        self._flags = flags
        self._sent: collections.deque[tuple[tuple[str, ...], jax.Array]] = collections.deque()
        self.agreed: dict[str, bool] = {}

    def send(self) -> None:
        """Sends the flags of this process to the others, for the step that was just dispatched."""
        if processes.count() > 1:
            flags = self._flags()
            self._sent.append((tuple(flags), _sum_over_devices([*flags.values()])))

    def receive(self) -> dict[str, bool]:
        """Returns the flags for the oldest step not yet received: True if any process raised them."""
        if processes.count() > 1:
            names, counts = self._sent.popleft()
            self.agreed = dict(zip(names, (np.asarray(counts) > 0).tolist(), strict=True))
        else:
            self.agreed = {name: bool(flag) for name, flag in self._flags().items()}
        return self.agreed


def _sum_over_devices(flags: list[bool]) -> jax.Array:
    """Returns the sum of `flags` over all devices, `(flags,)`, without waiting for it."""
    rows, total = _compiled_sum()
    own = np.tile(np.array(flags, np.int32), (jax.local_device_count(), 1))
    return total(jax.make_array_from_process_local_data(rows, own))


@functools.cache
def _compiled_sum() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    """Returns the sharding of one row of flags per device, and the jitted sum over the rows."""
    mesh = Mesh(np.array(jax.devices()), (_DEVICES,))
    replicated = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec(_DEVICES)), jax.jit(lambda x: x.sum(0), out_shardings=replicated)
