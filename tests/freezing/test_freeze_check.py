import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from transfer_jax.freezing.freeze_check import (
    FrozenChangedError,
    array_hashes,
    check_unchanged,
    combined_hash,
    frozen_unchanged,
)

ARRAYS = {
    "b": jnp.arange(6.0).reshape(2, 3),
    "a": jnp.ones((4,), jnp.bfloat16),
    "c": jnp.zeros(()),
    "d": jnp.zeros(0),
}

CHANGES = {
    "one bit": {"b": ARRAYS["b"].at[1, 2].set(5.0000005)},
    "the sign of zero": {"c": -ARRAYS["c"]},
    "shape": {"b": ARRAYS["b"].reshape(3, 2)},
    "shape of an empty array": {"d": jnp.zeros((0, 2))},
    "dtype": {"a": ARRAYS["a"].astype(jnp.float16)},
}


def test_equal_arrays_have_equal_hashes():
    copy = {path: array + 0 for path, array in reversed(ARRAYS.items())}
    assert array_hashes(copy) == array_hashes(ARRAYS)
    assert combined_hash(array_hashes(copy)) == combined_hash(array_hashes(ARRAYS))
    check_unchanged(array_hashes(ARRAYS), array_hashes(copy))


@pytest.mark.parametrize("change", CHANGES)
def test_changed_array_raises(change):
    changed = {**ARRAYS, **CHANGES[change]}
    (path,) = CHANGES[change]
    assert combined_hash(array_hashes(changed)) != combined_hash(array_hashes(ARRAYS))
    with pytest.raises(FrozenChangedError, match=f"^1 frozen array changed, first {path}$"):
        check_unchanged(array_hashes(ARRAYS), array_hashes(changed))


def test_renamed_and_missing_arrays_raise():
    renamed = {("z" if path == "b" else path): array for path, array in ARRAYS.items()}
    assert combined_hash(array_hashes(renamed)) != combined_hash(array_hashes(ARRAYS))
    with pytest.raises(FrozenChangedError, match=r"^2 frozen arrays changed, first b, z$"):
        check_unchanged(array_hashes(ARRAYS), array_hashes(renamed))
    with pytest.raises(FrozenChangedError, match=r"^4 frozen arrays changed, first a, b, c$"):
        check_unchanged(array_hashes(ARRAYS), {})


def test_record_of_unchanged_arrays():
    tree = {"layers": [ARRAYS["a"], ARRAYS["b"]], "key": jax.random.key(0)}
    with frozen_unchanged(tree) as record:
        assert record.after == {}
    found = record.summary()
    assert found["arrays"] == 3
    assert list(record.after) == ["key", "layers/0", "layers/1"]
    assert found["sha256_before"] == found["sha256_after"] == combined_hash(array_hashes(tree))


def add_one(tree):
    tree["body"][1][0] += 1


def test_array_changed_in_place_raises():
    tree = {"body": [np.ones(3), np.zeros(2)]}
    message = r"^1 frozen array changed, first body/1$"
    with pytest.raises(FrozenChangedError, match=message), frozen_unchanged(tree):
        add_one(tree)


def test_donated_array_raises():
    tree = {"body": jnp.ones(3), "head": jnp.ones(3)}
    message = r"1 frozen array was donated to a compiled function, first head;"
    with pytest.raises(FrozenChangedError, match=message), frozen_unchanged(tree):
        jax.jit(lambda x: x + 1, donate_argnums=0)(tree["head"])


def test_tree_of_a_function_is_read_again():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))

    def read():
        return nnx.state(model, nnx.Param)

    with frozen_unchanged(read), frozen_unchanged(model):
        model(jnp.ones((1, 2)))
    with pytest.raises(FrozenChangedError, match=r"first kernel$"), frozen_unchanged(read):
        model.kernel.set_value(jnp.ones((2, 3)))


def test_error_of_the_block_is_raised():
    tree = {"body": [np.ones(3)]}
    with pytest.raises(IndexError, match="list index"), frozen_unchanged(tree):
        add_one(tree)
