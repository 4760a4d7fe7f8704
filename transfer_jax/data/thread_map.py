"""A map in threads, in order, that reads a few items ahead."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from transfer_jax.distributed import processes

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")


def thread_map(function: Callable[[_Item], _Value], items: Iterable[_Item]) -> Iterator[_Value]:
    """Yields the values of a function, in the order of its arguments. A thread for each core calls it.

    A few values are computed ahead, so that the results of many items never are in memory at once.

    Args:
        function: The function.
        items: Its arguments.
    """
    workers = processes.cores()
    upcoming = iter(items)
    pending: collections.deque[Future[_Value]] = collections.deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in upcoming:
                pending.append(pool.submit(function, item))
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
