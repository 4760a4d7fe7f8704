import jax.numpy as jnp
import pytest

from transfer_jax.freezing.freeze_check import FrozenChangedError, check_unchanged, digests, fingerprint

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
    "shape of nothing": {"d": jnp.zeros((0, 2))},
    "dtype": {"a": ARRAYS["a"].astype(jnp.float16)},
}


def test_equal_arrays_have_equal_digests():
    copy = {path: array + 0 for path, array in reversed(ARRAYS.items())}
    assert digests(copy) == digests(ARRAYS)
    assert fingerprint(copy) == fingerprint(ARRAYS)
    check_unchanged(digests(ARRAYS), digests(copy))


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_found_and_named(change):
    changed = {**ARRAYS, **CHANGES[change]}
    (path,) = CHANGES[change]
    assert fingerprint(changed) != fingerprint(ARRAYS)
    with pytest.raises(FrozenChangedError, match=f"^1 frozen arrays changed, first {path}$"):
        check_unchanged(digests(ARRAYS), digests(changed))


def test_renamed_and_vanished_arrays_are_changes():
    renamed = {("z" if path == "b" else path): array for path, array in ARRAYS.items()}
    assert fingerprint(renamed) != fingerprint(ARRAYS)
    with pytest.raises(FrozenChangedError, match=r"^2 frozen arrays changed, first b, z$"):
        check_unchanged(digests(ARRAYS), digests(renamed))
    with pytest.raises(FrozenChangedError, match=r"^4 frozen arrays changed, first a, b, c$"):
        check_unchanged(digests(ARRAYS), {})
