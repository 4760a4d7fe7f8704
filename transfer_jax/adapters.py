"""Adapters of a model in memory: added, trained, saved, loaded, combined, switched and merged.

`fit` adds and trains those of a phase, `Phase(adapter=…)`.
"""

from pathlib import Path

from transfer_jax.freezing.adapter_text import AdapterText, parse_adapters
from transfer_jax.freezing.block_groups import group_by_block
from transfer_jax.models.adapters.adapter import is_adapter_path
from transfer_jax.models.adapters.install import in_use as adapters_in_use
from transfer_jax.models.adapters.install import install
from transfer_jax.models.adapters.install import merge as merge_adapters
from transfer_jax.models.adapters.install import remove as remove_adapters
from transfer_jax.models.adapters.install import use as use_adapters
from transfer_jax.models.backbone import Classifier
from transfer_jax.models.flat_arrays import split
from transfer_jax.weights.adapter_files import add_from_file, read_adapters, save_adapters
from transfer_jax.weights.peft import load_peft, save_peft

__all__ = [
    "AdapterText",
    "adapters_in_use",
    "add_adapters",
    "load_adapters",
    "load_peft",
    "merge_adapters",
    "remove_adapters",
    "save_adapters",
    "save_peft",
    "use_adapters",
]


def add_adapters(model: Classifier, adapters: str, *, seed: int = 0) -> None:
    """Adds adapters with initial values to a model in place, and puts them to use.

    Example:
        >>> model = create_model("vit_nano_patch8_32", 10)
        >>> add_adapters(model, "dora(match('attn/qkv/kernel'), rank=8) + parallel(width=16)")
        >>> adapters_in_use(model)
        ('dora', 'parallel')

    Args:
        model: The model, with its pretrained weights.
        adapters: The adapters as text; see `parse_adapters`.
        seed: Seed of the initial values.

    Raises:
        SelectorError: If the text is invalid, or selects no layer that can be adapted.
        ValueError: If the model has an adapter of that name, or another kind of layer than the adapter needs.
    """
    params = [path for path in split(model)[1] if not is_adapter_path(path)]
    groups = group_by_block(params, model.backbone.block_names)
    for text in parse_adapters(adapters):
        install(model, text.resolve(groups), seed)


def load_adapters(model: Classifier, place: str | Path, *, name: str | None = None) -> None:
    """Adds the adapters of a file or of a finished run to a model in place, and puts them to use.

    Several adapters are applied in the order in which they were added; `use_adapters` chooses some of them.

    Args:
        model: The model, with the weights that the adapters were trained on.
        place: A file of `save_adapters`, the workdir of a finished run, or its folder `model`.
        name: Another name for the only adapter of the file, such as that of a task.

    Raises:
        FileNotFoundError: If there is no such file or model.
        CheckpointError: If the file is damaged or has no adapters.
        ValueError: If the model has other weights than those that the adapters were trained on, or an adapter
            of that name.
    """
    add_from_file(model, read_adapters(place), place, name)
