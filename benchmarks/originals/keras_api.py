"""Keras on its JAX backend."""

import os
from typing import Any


def import_keras() -> Any:
    """The package, on JAX unless the environment says otherwise."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    return keras
