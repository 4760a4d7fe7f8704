"""Batches of images of different requests, computed together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np


class _Waiting(NamedTuple):
    """An image that waits for its outputs."""

    pixels: np.ndarray
    outputs: asyncio.Future[np.ndarray]


class RequestBatches:
    """A queue of images, which are computed in batches of fixed sizes.

    The first image waits a few milliseconds for others. The images that come while a batch is computed are
    the next batch. A batch is filled up to the next of the sizes, so that no other program is ever compiled.

    Attributes:
        computed: Number of batches that were computed.

    Args:
        compute: Function from a batch `(size, ...)` to its outputs `(size, ...)`; a thread calls it.
        sizes: The sizes of batches.
        wait: Longest time that an image waits for others, in seconds.

    Raises:
        ValueError: If the sizes are not positive, or `wait` is negative.
    """

    def __init__(
        self, compute: Callable[[np.ndarray], np.ndarray], sizes: Sequence[int], wait: float
    ) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes of batches must be at least 1, got {tuple(sizes)}")
        if wait < 0:
            raise ValueError(f"the waiting time must not be negative, got {wait}")
        self._compute, self._sizes, self._wait = compute, sorted(set(sizes)), wait
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "compute")
        self._task: asyncio.Task[None] | None = None
        self.computed = 0

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of batches, smallest first."""
        return tuple(self._sizes)

    def start(self) -> None:
        """Starts to compute; an event loop must be running."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Computes what is waiting, and ends."""
        self._queue.put_nowait(None)
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def outputs(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the outputs of one image; errors of `compute` are raised here."""
        waiting = _Waiting(pixels, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(waiting)
        return await waiting.outputs

    async def _work(self) -> None:
        ended = False
        while not ended:
            batch, ended = await self._collect()
            if batch:
                await self._answer(batch)

    async def _collect(self) -> tuple[list[_Waiting], bool]:
        """Returns the next batch, and whether it is the last one."""
        found = await self._queue.get()
        deadline = asyncio.get_running_loop().time() + self._wait
        batch: list[_Waiting] = []
        while found is not None:
            batch.append(found)
            if len(batch) == self._sizes[-1]:
                return batch, False
            try:
                found = self._queue.get_nowait()
            except asyncio.QueueEmpty:
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    return batch, False
                try:
                    found = await asyncio.wait_for(self._queue.get(), left)
                except TimeoutError:
                    return batch, False
        return batch, True

    async def _answer(self, batch: list[_Waiting]) -> None:
        batch = [each for each in batch if not each.outputs.done()]  # Others were cancelled.
        if not batch:
            return
        size = next(size for size in self._sizes if size >= len(batch))
        images = np.zeros((size, *batch[0].pixels.shape), batch[0].pixels.dtype)
        images[: len(batch)] = [each.pixels for each in batch]
        try:
            loop = asyncio.get_running_loop()
            outputs = await loop.run_in_executor(self._thread, self._compute, images)
            self.computed += 1
        except Exception as error:
            for each in batch:
                if not each.outputs.done():
                    each.outputs.set_exception(error)
            return
        for each, row in zip(batch, outputs, strict=False):
            if not each.outputs.done():
                each.outputs.set_result(row)
