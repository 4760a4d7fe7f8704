import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from transfer_jax.serving.limits import Limits

pytestmark = pytest.mark.extended


def test_a_slow_client_does_not_hold_a_place_for_ever():
    pytest.importorskip("starlette")
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    from transfer_jax.serving.uploads import read_uploads

    async def receive() -> dict:
        await asyncio.sleep(5)
        return {}

    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
    uploads = read_uploads(Request(scope, receive), Limits(seconds=0.05))
    with ThreadPoolExecutor() as pool:  # Tests of browsers leave an event loop in this thread.
        done = pool.submit(asyncio.run, uploads)
    with pytest.raises(HTTPException, match=r"did not arrive within 0\.05 s") as error:
        done.result()
    assert error.value.status_code == 408


@pytest.mark.parametrize("name", ["body_bytes", "pixels", "images", "seconds"])
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
        Limits(**{name: 0})
