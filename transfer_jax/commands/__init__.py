"""The commands of `transfer-jax`: functions whose parameters and docstrings are the options and the help.

Their modules import little at the top; the functions import what they need, so that `--help` is fast.
"""
