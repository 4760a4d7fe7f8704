"""Addition, removal, merging and choice of the adapters of a model."""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from flax import nnx

from transfer_jax.models.adapters.adapted_modules import Adapted, adapt, merge_kernel, without_adapter
from transfer_jax.models.adapters.adapter import Adapter, Dora, Ia3, Lora, Parallel, Prompts
from transfer_jax.models.adapters.block_rules import ParallelRule, PromptRule
from transfer_jax.models.adapters.kernel_rules import DoraRule, Ia3Rule, LoraRule
from transfer_jax.models.backbone import Classifier

_KERNEL_RULES: dict[type[Adapter], Any] = {Lora: LoraRule, Dora: DoraRule, Ia3: Ia3Rule}
_BLOCK_RULES: dict[type[Adapter], Any] = {Prompts: PromptRule, Parallel: ParallelRule}


def install(model: Classifier, adapter: Adapter, seed: int = 0) -> None:
    """Adds an adapter with initial values to a model in place, and puts it to use.

    Args:
        model: The model, which may have shapes instead of arrays.
        adapter: The adapter.
        seed: Seed of the initial values, which also depend on the adapter's name.

    Raises:
        ValueError: If the model has an adapter of that name, lacks a layer, or has another kind of layer.
    """
    if adapter.name in (names := [each.name for each in model.backbone.adapters]):
        raise ValueError(f"the model has an adapter {adapter.name!r} already; it has {', '.join(names)}")
    rng = np.random.default_rng([seed, zlib.crc32(adapter.name.encode())])
    made = []
    for position, path in enumerate(adapter.layers):
        module, name = _module_at(model, path), path.rpartition("/")[2]
        if rule := _BLOCK_RULES.get(type(adapter)):
            if not callable(module):
                raise ValueError(f"{adapter.kind} needs a network of this package; use lora, dora or ia3")
            made.append((module, rule(adapter, module, position, rng)))
        else:
            kernel = vars(module).get("kernel")
            if not isinstance(kernel, nnx.Variable):
                raise ValueError(f"{path} has no kernel, which {adapter.kind} needs")
            made.append((module, _KERNEL_RULES[type(adapter)](adapter, name, kernel.get_value(), rng)))
    for module, rule in made:
        adapt(module, adapter.name, rule)
    model.backbone.adapters = (*model.backbone.adapters, adapter)


def remove(model: Classifier, *names: str) -> None:
    """Removes adapters from a model in place; without names, all of them.

    Raises:
        ValueError: If the model has no adapter of a name.
    """
    names = _known(model, names) or tuple(each.name for each in model.backbone.adapters)
    for adapter in model.backbone.adapters:
        if adapter.name in names:
            for path in adapter.layers:
                without_adapter(_module_at(model, path), adapter.name)
    _list(model, [each for each in model.backbone.adapters if each.name not in names])


def merge(model: Classifier) -> None:
    """Merges the adapters in use that change weights into the weights of a model, in place.

    Adapters of these kinds that are not in use are removed. Prompts and perceptrons in parallel remain.
    """
    for module in [*_adapted_modules(model)]:
        merge_kernel(module)
    _list(model, [each for each in model.backbone.adapters if not each.changes_weights])


def use(model: Classifier, *names: str) -> None:
    """Puts the named adapters of a model to use, and no others; they are applied in this order.

    Raises:
        ValueError: If the model has no adapter of a name.
    """
    names = _known(model, names)
    for module in _adapted_modules(model):
        module.active_adapters = tuple(name for name in names if hasattr(module.adapters, name))


def in_use(model: Classifier) -> tuple[str, ...]:
    """Returns the names of the adapters of a model that are in use."""
    active = {name for module in _adapted_modules(model) for name in module.active_adapters}
    return tuple(each.name for each in model.backbone.adapters if each.name in active)


def _list(model: Classifier, adapters: Sequence[Adapter]) -> None:
    """Sets the list of adapters of a model; without any, the model has its former definition again."""
    if adapters:
        model.backbone.adapters = tuple(adapters)
    elif "adapters" in vars(model.backbone):
        del model.backbone.adapters


def _known(model: Classifier, names: Sequence[str]) -> tuple[str, ...]:
    known = [each.name for each in model.backbone.adapters]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no adapter {unknown[0]!r}; the model has {', '.join(known) or 'none'}")
    return tuple(names)


def _module_at(model: Classifier, path: str) -> Any:
    """Returns the module at a path."""
    module: Any = model
    for part in path.split("/"):
        found = vars(module).get(part) if isinstance(module, nnx.Module) else None
        if found is None and part.isdigit():
            found = module[int(part)]  # pyright: ignore[reportIndexIssue]
        if found is None:
            raise ValueError(f"the model has no layer {path!r}")
        module = found
    return module


def _adapted_modules(model: Classifier) -> Iterator[Any]:
    """Yields the adapted modules of a model."""
    done = set()
    for adapter in model.backbone.adapters:
        for path in adapter.layers:
            module = _module_at(model, path)
            if isinstance(module, Adapted) and path not in done:
                done.add(path)
                yield module
