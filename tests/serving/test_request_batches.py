import asyncio
import time

import numpy as np
import pytest

from transfer_jax.serving.request_batches import RequestBatches


def recorded(sizes: list[int], seconds: float = 0.0):
    """A computation that doubles its input and records the sizes of its batches."""

    def compute(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        time.sleep(seconds)
        if (images == 7).any():
            raise RuntimeError("seven")
        return images * 2

    return compute


def run(batches: RequestBatches, values: list[int]) -> list:
    async def submit() -> list:
        batches.start()
        waiting = [batches.outputs(np.full(2, value)) for value in values]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        await batches.stop()
        return found

    return asyncio.run(submit())


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [1]), (2, [4]), (4, [4]), (7, [4, 4]), (9, [4, 4, 1])], ids=str
)
def test_images_are_computed_together_in_fixed_sizes(count, expected):
    sizes: list[int] = []
    batches = RequestBatches(recorded(sizes), (4, 1), 0.2)
    found = run(batches, list(range(10, 10 + count)))
    assert sizes == expected
    assert batches.computed == len(expected)
    assert [row.tolist() for row in found] == [[2 * value] * 2 for value in range(10, 10 + count)]


def test_an_image_alone_does_not_wait_long():
    start = time.monotonic()
    run(RequestBatches(recorded([]), (1, 1000), 0.01), [1])
    assert time.monotonic() - start < 5


def test_an_error_reaches_all_images_of_its_batch_and_no_other():
    found = run(RequestBatches(recorded([]), (2,), 0.2), [1, 7, 3, 4])
    assert [str(each) for each in found[:2]] == ["seven", "seven"]
    assert [row.tolist() for row in found[2:]] == [[6, 6], [8, 8]]


def test_images_that_nobody_waits_for_are_left_out():
    sizes: list[int] = []

    async def cancel_one() -> None:
        batches = RequestBatches(recorded(sizes, 0.05), (1, 2, 3), 0.0)
        batches.start()
        first = asyncio.ensure_future(batches.outputs(np.zeros(1)))
        await asyncio.sleep(0.01)
        others = [asyncio.ensure_future(batches.outputs(np.ones(1))) for _ in range(2)]
        await asyncio.sleep(0)
        others[0].cancel()
        assert await first == 0
        assert await others[1] == 2
        await batches.stop()

    asyncio.run(cancel_one())
    assert sizes == [1, 1]


def test_stopping_computes_what_is_waiting():
    async def stop() -> list:
        batches = RequestBatches(recorded([], 0.02), (1,), 0.0)
        batches.start()
        waiting = [asyncio.ensure_future(batches.outputs(np.full(1, value))) for value in (1, 2, 3)]
        await asyncio.sleep(0)
        await batches.stop()
        return [each.result().item() for each in waiting]

    assert asyncio.run(stop()) == [2, 4, 6]


@pytest.mark.parametrize(("sizes", "wait"), [((), 0.0), ((0, 1), 0.0), ((1,), -1.0)], ids=str)
def test_invalid_settings(sizes, wait):
    with pytest.raises(ValueError, match="must"):
        RequestBatches(recorded([]), sizes, wait)
