"""Batches that processes fetch, so that decoding is not limited by Python's global interpreter lock."""

import weakref
from collections.abc import Iterator
from typing import Any

import grain

from transfer_jax.data.readers import pickled_size

_BUFFER = 2
"""Batches that each process fetches ahead."""


class ProcessBatches:
    """The batches of a grain dataset, fetched by processes.

    The batches and the states of iterators are those of threads: any number of processes continues from a
    state. Each iterator starts processes, which takes some seconds, and `close` ends them.

    Args:
        batches: The batches, with random access. Its functions and its source are pickled.
        options: Threads and prefetched batches of each process.
        workers: Number of processes.

    Raises:
        ValueError: If the batches cannot be pickled.
    """

    def __init__(self, batches: grain.MapDataset, options: grain.ReadOptions, workers: int) -> None:
        if pickled_size(batches) is None:
            raise ValueError(
                f"{workers} processes cannot read the images: their source cannot be pickled; use "
                "read_processes=0, or a class instead of a function inside of a function"
            )
        self._batches, self._options, self._workers = batches, options, workers

    def __iter__(self) -> "ProcessIterator":
        return ProcessIterator(self._batches, self._options, self._workers)


class ProcessIterator(Iterator[Any]):
    """An iterator of `ProcessBatches`, with the state of an iterator that reads in threads.

    Args:
        batches: As for `ProcessBatches`.
        options: As for `ProcessBatches`.
        workers: As for `ProcessBatches`.
    """

    def __init__(self, batches: grain.MapDataset, options: grain.ReadOptions, workers: int) -> None:
        self._batches, self._options, self._workers = batches, options, workers
        self._position, self._source = 0, None

    def __iter__(self) -> "ProcessIterator":
        return self

    def __next__(self) -> Any:
        if self._source is None:
            self._source = self._started()
        batch = next(self._source)
        self._position += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the number of batches that were returned."""
        return {"next_index": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues after a number of batches.

        Args:
            state: The state of an iterator of the same batches, whether it reads in processes or threads.
        """
        self.close()
        self._position = int(state["next_index"])

    def close(self) -> None:
        """Ends the processes; the next batch starts new ones."""
        if self._source is not None:
            self._finalizer()
            self._source = None

    def _started(self) -> Any:
        _accept_flags()
        rest = self._batches[self._position :] if self._position else self._batches
        options = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=_BUFFER)
        source = iter(rest.to_iter_dataset(self._options).mp_prefetch(options))
        # Also at the end of the interpreter, where grain's own clean-up comes too late.
        self._finalizer = weakref.finalize(self, source.close)
        return source


def _accept_flags() -> None:
    """Marks the flags of absl as parsed, which grain reads; a program with flags of its own parses them."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
