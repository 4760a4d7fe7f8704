"""The commands of `transfer-jax`: functions, whose signatures and docstrings are their options and help."""
