"""Paths of parameters, such as `backbone/blocks.3/expand/conv/kernel`. This module imports no JAX."""


def block_of(path: str) -> str:
    """Returns the block that a parameter belongs to: a block of the backbone, or `head`."""
    first, second, *_ = path.split("/")
    return second if first == "backbone" else first
