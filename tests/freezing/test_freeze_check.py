import jax.numpy as jnp
import pytest

from transfer_jax.freezing.freeze_check import (
    FrozenChangedError,
    array_hashes,
    check_unchanged,
    combined_hash,
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
    with pytest.raises(FrozenChangedError, match=f"^1 frozen arrays changed, first {path}$"):
        check_unchanged(array_hashes(ARRAYS), array_hashes(changed))


def test_renamed_and_missing_arrays_raise():
    renamed = {("z" if path == "b" else path): array for path, array in ARRAYS.items()}
    assert combined_hash(array_hashes(renamed)) != combined_hash(array_hashes(ARRAYS))
    with pytest.raises(FrozenChangedError, match=r"^2 frozen arrays changed, first b, z$"):
        check_unchanged(array_hashes(ARRAYS), array_hashes(renamed))
    with pytest.raises(FrozenChangedError, match=r"^4 frozen arrays changed, first a, b, c$"):
        check_unchanged(array_hashes(ARRAYS), {})
