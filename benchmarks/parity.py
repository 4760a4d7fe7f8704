"""Are our networks those of other libraries?

    python benchmarks/parity.py --match "resnet*" --out parity.json

Builds each network in the other library with random weights and randomized running statistics, loads its
state dict into ours by its names, and compares the output of every block and the logits, in float32, at the
native and at an odd image size. The error is the largest difference relative to the largest value. Then
exports ours, loads it strictly into the other library, and compares the parameters bit for bit.
"""

import argparse
import datetime
import fnmatch
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from contest import report
from originals import CLASSES, ORIGINALS, Original

from transfer_jax.models import Classifier, create_model
from transfer_jax.models.functional import Arrays, merge, split
from transfer_jax.models.registry import variant_of
from transfer_jax.weights.convert import fill
from transfer_jax.weights.naming import to_library
from transfer_jax.weights.specs import WeightsSpec


def randomized(name: str, original: Original) -> Any:
    """The network in the other library; every normalization has random parameters and statistics."""
    import torch

    torch.manual_seed(0)
    network = original.make(name).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for name, tensor in module.state_dict().items():
                    if name in ("weight", "running_var"):
                        tensor.uniform_(0.5, 1.5)
                    elif name in ("bias", "running_mean"):
                        tensor.normal_(0, 0.1)
    return network


def theirs(network: Any, pixels: np.ndarray, modules: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The outputs of their modules by our block, channels last, and the `logits`."""
    import torch

    found: dict[str, np.ndarray] = {}

    def keep(block: str, output: Any) -> None:
        array = (output if torch.is_tensor(output) else next(iter(output))).numpy().copy()
        found[block] = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array

    hooks = [
        network.get_submodule(module).register_forward_hook(
            lambda _, inputs, output, block=block: keep(block, output)
        )
        for block, module in modules.items()
    ]
    with torch.inference_mode():
        output = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
    for hook in hooks:
        hook.remove()
    return {**found, "logits": (output if torch.is_tensor(output) else output.logits).numpy()}


def ours(model: Classifier, pixels: np.ndarray) -> dict[str, jax.Array]:
    """The outputs of our blocks, and the `logits`."""
    graphdef, params, stats = split(model)

    @jax.jit
    def run(arrays: Arrays, x: jax.Array) -> dict[str, jax.Array]:
        network, found = merge(graphdef, arrays), {}
        for block in network.backbone.block_names:
            x = getattr(network.backbone, block)(x)
            found[block] = x
        return {**found, "logits": network.head(x)}

    return run({**params, **stats}, pixels)


def loaded(name: str, network: Any) -> Classifier:
    """Our network, filled from the state dict of theirs, the classifier too."""
    variant = variant_of(name)
    model = create_model(name, CLASSES, hidden=variant.hidden, abstract_backbone=True)
    spec = WeightsSpec(name=name, model=name, file="", preprocessing=variant.preprocessing)
    fill(model, {key: value.numpy() for key, value in network.state_dict().items()}, spec, head=True)
    model.eval()
    return model


def errors(name: str, library: str, network: Any, model: Classifier, size: int) -> dict[str, float]:
    """By block, the largest difference relative to the largest value."""
    original = ORIGINALS[name, library]
    pixels = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    modules = {block: original.module(name, block) for block in model.backbone.block_names}
    expected = theirs(network, pixels, {block: module for block, module in modules.items() if module})
    found = ours(model, pixels)
    return {
        block: float(np.abs(found[block] - wanted.reshape(found[block].shape)).max() / np.abs(wanted).max())
        for block, wanted in expected.items()
    }


def check_round_trip(name: str, library: str, network: Any, model: Classifier) -> None:
    """Exports ours, and loads it strictly into theirs: the same arrays, bit for bit.

    Raises:
        RuntimeError: If the other library misses a key or finds one too many.
        AssertionError: If an array differs.
    """
    import torch

    before = {key: value.clone() for key, value in network.state_dict().items()}
    counters = {key: value for key, value in before.items() if key.endswith("num_batches_tracked")}
    _, params, stats = split(model)
    written = to_library(name, {path: np.asarray(x) for path, x in {**params, **stats}.items()}, library)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    state = {key: torch.from_numpy(value.copy()) for key, value in written.items()}
    network.load_state_dict({**state, **counters}, strict=True)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def odd_size(name: str) -> int:
    """An image size that is no multiple of the network's strides."""
    return variant_of(name).preprocessing.image_size * 3 // 4 - 3


def rows(match: str) -> Iterator[dict[str, Any]]:
    """A row of results for each network and library."""
    for name, library in ORIGINALS:
        if not fnmatch.fnmatch(name, match):
            continue
        network = randomized(name, ORIGINALS[name, library])
        model = loaded(name, network)
        row: dict[str, Any] = {"network": name, "library": library}
        for size in (variant_of(name).preprocessing.image_size, odd_size(name)):
            found = errors(name, library, network, model, size)
            worst = max(found, key=found.__getitem__)
            row[f"{size} px" if size == 224 else "odd px"] = f"{found[worst]:.1e} ({worst})"
        check_round_trip(name, library, network, model)
        yield {**row, "round trip": "bitwise"}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--match", default="*", help="shell pattern of the networks")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    title = f"Relative error against other libraries, {datetime.date.today()}"
    report(title, [*rows(arguments.match)], arguments.out, packages=("jax", "torch", "torchvision", "timm"))


if __name__ == "__main__":
    main()
