import pytest

from transfer_jax.data.readers import Readers
from transfer_jax.planning.reading_speed import cores_in_use


@pytest.mark.parametrize(
    ("readers", "cores", "expected"),
    [
        (Readers(2, 0), 2, 2),
        (Readers(4, 0), 2, 2),
        (Readers(6, 0), 112, 5),
        (Readers(1, 48), 112, 48),
        (Readers(2, 48), 64, 64),
        (Readers(8, 2), 112, 10),
    ],
)
def test_threads_of_a_process_share_its_lock(readers, cores, expected):
    assert cores_in_use(readers, cores) == expected
