import numpy as np
import pytest

from transfer_jax.weights.readers.flax_tree import split_scanned_blocks
from transfer_jax.weights.readers.lazy_weights import ArrayInfo


@pytest.mark.parametrize(
    ("key", "shape", "expected"),
    [
        (
            "Transformer/encoderblock/norm/scale",
            (3, 4),
            [f"Transformer/encoderblock_{i}/norm/scale" for i in range(3)],
        ),
        ("encoderblock/scale", (2, 4), ["encoderblock_0/scale", "encoderblock_1/scale"]),
        ("Transformer/encoderblock_1/scale", (3, 4), ["Transformer/encoderblock_1/scale"]),
        ("myencoderblock/scale", (3, 4), ["myencoderblock/scale"]),
        ("encoderblock/scale", (3,), ["encoderblock/scale"]),
        ("encoderblock/scale", (10**6, 0), ["encoderblock/scale"]),  # as a damaged file may say
    ],
)
def test_arrays_of_all_blocks_are_divided_and_read_once(key, shape, expected):
    array, reads = np.random.default_rng(0).normal(size=shape), []

    def load() -> np.ndarray:
        reads.append(key)
        return array

    loaders, infos = split_scanned_blocks({key: load}, {key: ArrayInfo(shape, "float64")})
    assert list(loaders) == list(infos) == expected
    rows = [loader() for loader in loaders.values()]
    assert reads == [key]
    divided = expected != [key]
    assert {info.shape for info in infos.values()} == {shape[1:] if divided else shape}
    np.testing.assert_array_equal(np.stack(rows) if divided else rows[0], array)
