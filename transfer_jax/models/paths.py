"""Paths of parameters, such as `backbone/blocks.3/expand/conv/kernel`. This module imports no JAX."""


def block_of(path: str) -> str:
    """Returns the block that a parameter belongs to: a block of the backbone, or `head`."""
    first, *others = path.split("/")
    return others[0] if first == "backbone" and others else first
