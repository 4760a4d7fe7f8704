"""Where each parameter of ours stands in other libraries' files: one module a family."""

from collections.abc import Callable

from transfer_jax.weights.keymaps import efficientnet_lite

TorchModule = Callable[[tuple[str, ...]], str | None]

_FAMILIES: dict[str, TorchModule] = {"efficientnet_lite": efficientnet_lite.torch_module}

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_key(model: str, path: str) -> str | None:
    """The key, in PyTorch's naming, of the parameter at a path of a network; None if it has none."""
    module = next(find for family, find in _FAMILIES.items() if model.startswith(family))
    parts = tuple(path.split("/"))
    name = module(parts)
    return None if name is None else f"{name}.{_LEAVES[parts[-1]]}"
