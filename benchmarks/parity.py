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
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from contest import report
from originals import CLASSES, ORIGINALS, Original

from transfer_jax.models import Classifier, create_model
from transfer_jax.models.functional import Arrays, merge, split
from transfer_jax.models.registry import variant_of
from transfer_jax.weights.convert import fill
from transfer_jax.weights.naming import BOOKKEEPING, Naming, to_library
from transfer_jax.weights.specs import WeightsSpec

FILES = ("transformers", "transformers-base")
"""Namings that are compared through files, since Hugging Face has other names in memory."""
PACKAGES = ("jax", "torch", "torchvision", "timm", "transformers")


def randomized(name: str, original: Original, size: int) -> Any:
    """The other library's network for images of a size; nothing in it is zero, one or the same everywhere.

    Its running statistics fit what it makes of noise: with any others the activations of a deep network grow
    until rounding errors do too, and a channel that hardly varies would do the same.
    """
    import torch

    torch.manual_seed(0)
    network = original.make(name, size)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.ndim == 1 and key.endswith(("weight", "gamma")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim == 1 and key.endswith("bias"):
                tensor.normal_(0, 0.1)
            elif tensor.ndim > 1 and tensor.std() < 0.03 and tensor.ndim != 4:
                tensor.normal_(0, 0.03)
        norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            network.train()(torch.randn(4, 3, size, size))
        for norm in norms:
            mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            mean.add_(torch.empty_like(mean).normal_(0, 0.1) * var.sqrt())
            var.add_(0.2 * var.mean()).mul_(torch.empty_like(var).uniform_(0.8, 1.25))
    return network.eval()


def theirs(
    network: Any, pixels: np.ndarray, modules: Mapping[str, str], *, channels_last: bool = False
) -> dict[str, np.ndarray]:
    """The outputs of their modules by our block, and the `logits`; images have their channels last.

    Args:
        network: Theirs.
        pixels: Images, channels last.
        modules: Their modules by our block; one for `logits` if these are not what the network gives.
        channels_last: Whether channels are last in their modules too.
    """
    import torch

    found: dict[str, np.ndarray] = {}

    def keep(block: str, output: Any) -> None:
        array = (output if torch.is_tensor(output) else next(iter(output))).numpy().copy()
        found[block] = array if array.ndim < 4 or channels_last else array.transpose(0, 2, 3, 1)

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
    if not torch.is_tensor(output):
        output = getattr(output, "logits", None)  # a tower has none
    return found if output is None else {"logits": output.numpy(), **found}


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


def has_head(name: str, library: str) -> bool:
    """Whether the published classifier is one that ours can be."""
    return bool(Naming(name, library).keys("head/classifier/kernel"))


def state(network: Any, library: str) -> dict[str, np.ndarray]:
    """Their arrays by key: for Hugging Face those of the file it writes, else the state dict."""
    if library not in FILES:
        return {key: value.numpy().copy() for key, value in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        return safetensors.numpy.load_file(Path(folder, "model.safetensors"))


def loaded(name: str, library: str, network: Any, size: int) -> Classifier:
    """Our network, filled from the arrays of theirs, the classifier too if it has a place there."""
    original = ORIGINALS[name, library]
    variant = variant_of(name)
    model = create_model(name, CLASSES, hidden=variant.hidden, image_size=size, abstract_backbone=True)
    spec = WeightsSpec(name=name, model=name, address="", preprocessing=variant.preprocessing)
    skip = (original.besides,) if original.besides else ()
    fill(model, state(network, library), spec, head=has_head(name, library), skip=skip)
    model.eval()
    return model


def compare(name: str, library: str, size: int) -> dict[str, float]:
    """By block, the largest difference relative to the largest value; and checks the way back.

    Raises:
        RuntimeError, AssertionError: As `check_round_trip`.
    """
    original = ORIGINALS[name, library]
    network = randomized(name, original, size)
    model = loaded(name, library, network, size)
    pixels = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    modules = {block: original.module(name, block) for block in model.backbone.block_names}
    modules = {block: module for block, module in {**modules, "logits": original.logits}.items() if module}
    expected = theirs(network, pixels, modules, channels_last=original.channels_last)
    if not has_head(name, library):
        expected.pop("logits", None)  # of a classifier that is not like ours
    found = ours(model, pixels)
    check_round_trip(name, library, network, model)
    return {block: error(found[block], wanted) for block, wanted in expected.items()}


def error(found: jax.Array, wanted: np.ndarray) -> float:
    """The largest difference relative to the largest value; of the last channels, if theirs has no more."""
    if found.ndim == wanted.ndim:
        found = found[..., -wanted.shape[-1] :]
    return float(np.abs(found - wanted.reshape(found.shape)).max() / np.abs(wanted).max())


def check_round_trip(name: str, library: str, network: Any, model: Classifier) -> None:
    """Exports ours, and loads it strictly into theirs: the same arrays, bit for bit.

    Raises:
        RuntimeError: If the other library misses a key or finds one too many.
        AssertionError: If an array differs.
    """
    import torch

    original = ORIGINALS[name, library]
    before = {key: value.clone() for key, value in network.state_dict().items()}
    _, params, stats = split(model)
    ours = {path: np.asarray(x) for path, x in {**params, **stats}.items()}
    if not has_head(name, library):
        ours = {path: x for path, x in ours.items() if not path.startswith("head/")}
    written = to_library(name, ours, library)
    for key, value in state(network, library).items():
        if BOOKKEEPING.search(key) or (original.besides and re.search(original.besides, key)):
            assert key not in written, key
            written[key] = value
    if library in FILES:
        network = read_back(network, written)
    else:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        network.load_state_dict({key: torch.tensor(value) for key, value in written.items()}, strict=True)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def read_back(network: Any, arrays: dict[str, np.ndarray]) -> Any:
    """What Hugging Face makes of a file of these arrays.

    Raises:
        RuntimeError: If it misses a key or finds one too many.
    """
    with tempfile.TemporaryDirectory() as folder:
        network.config.save_pretrained(folder)
        safetensors.numpy.save_file(arrays, Path(folder, "model.safetensors"), metadata={"format": "pt"})
        network, found = type(network).from_pretrained(folder, output_loading_info=True)
    if wrong := {what: keys for what, keys in found.items() if keys}:
        raise RuntimeError(f"read back from a file: {wrong}")
    return network


def sizes(name: str, library: str) -> tuple[int, int]:
    """The native image size, and an odd one: no multiple of the strides, but of the patches, if any."""
    variant = variant_of(name)
    native = variant.preprocessing.image_size
    odd = native * 3 // 4 - 3
    return native, ORIGINALS[name, library].odd or odd - odd % getattr(variant.shape, "patch", 1)


def rows(match: str) -> Iterator[dict[str, Any]]:
    """A row of results for each network and library."""
    for name, library in ORIGINALS:
        if fnmatch.fnmatch(name, match):
            found = [compare(name, library, size) for size in sizes(name, library)]
            worst = [max(errors, key=errors.__getitem__) for errors in found]
            shown = [f"{errors[block]:.1e} ({block})" for errors, block in zip(found, worst, strict=True)]
            yield {
                "network": name,
                "library": library,
                "native size": shown[0],
                "odd size": shown[1],
                "round trip": "bitwise",
            }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--match", default="*", help="shell pattern of the networks")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    title = f"Relative error against other libraries, {datetime.date.today()}"
    report(title, [*rows(arguments.match)], arguments.out, packages=PACKAGES)


if __name__ == "__main__":
    main()
