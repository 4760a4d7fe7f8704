"""The text of a traced function, by which objects of different processes are compared."""

import hashlib
import re
from collections.abc import Callable
from typing import Any


def program_text(function: Callable[..., Any], *arguments: Any) -> str:
    """Returns a text that is the same for functions with the same operations and constants.

    Args:
        function: The function.
        *arguments: Trees of arrays or of `jax.ShapeDtypeStruct`.
    """
    from transfer_jax.freezing.function_split.jaxprs import trace

    program, constants, shapes = trace(function, *arguments)
    text = re.sub(r"0x[0-9a-f]+", "", f"{program}\n{shapes}\n")
    return text + "\n".join(map(_hash, constants))


def _hash(constant: Any) -> str:
    import jax
    import numpy as np

    if isinstance(constant, jax.Array) and jax.numpy.issubdtype(constant.dtype, jax.dtypes.prng_key):
        constant = jax.random.key_data(constant)
    array = np.asarray(constant)
    return f"{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
