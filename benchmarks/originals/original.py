"""Networks of other libraries, with the modules that correspond to our blocks."""

import dataclasses
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

CLASSES = 11
LABELS = {label: str(label) for label in range(CLASSES)}
"""The classes in the form of transformers' configs."""


@dataclasses.dataclass(frozen=True)
class Original:
    """A network of another library, in PyTorch.

    Attributes:
        make: A function from our name and an image size to the network, with `CLASSES` classes.
        module: A function from our name and our block to the module with the same output; "" if none has it.
        logits: The module that corresponds to our classifier; "" for the whole network.
        ignore: A regular expression for keys that are not compared.
        damped: A regular expression for gains that are drawn five times smaller: those of the branches of a
            deep network in which rounding errors would grow otherwise, because its statistics are recomputed.
        odd: Side of the second image size, in pixels; 0 for three quarters of the native size.
        channels_last: Whether the network takes images with channels last.
    """

    make: Callable[[str, int], Any]
    module: Callable[[str, str], str]
    logits: str = ""
    ignore: str = ""
    damped: str = ""
    odd: int = 0
    channels_last: bool = False

    @property
    def package(self) -> str:
        """Returns the package that runs the network."""
        return "torch"

    def randomized(self, name: str, size: int) -> Any:
        """Returns the network for images of a size; none of its arrays is constant.

        Its running statistics fit what it makes of noise: with any others the activations of a deep network
        grow until rounding errors do too, and a channel that hardly varies would do the same.
        """
        import torch

        torch.manual_seed(0)
        network = self.make(name, size)
        with torch.no_grad():
            for key, tensor in network.state_dict().items():
                if tensor.ndim == 1 and key.endswith(("weight", "gamma")):
                    tensor.uniform_(0.5, 1.5)
                    if self.damped and re.search(self.damped, key):
                        tensor.mul_(0.2)
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

    def outputs(self, network: Any, pixels: np.ndarray, modules: Mapping[str, str]) -> dict[str, np.ndarray]:
        """Returns the outputs of modules by our block, and the `logits` if it has any; channels are last."""
        import torch

        found: dict[str, np.ndarray] = {}

        def keep(block: str, output: Any) -> None:
            array = (output if torch.is_tensor(output) else next(iter(output))).numpy().copy()
            found[block] = array if array.ndim < 4 or self.channels_last else array.transpose(0, 2, 3, 1)

        hooks = [
            network.get_submodule(module).register_forward_hook(
                lambda _, inputs, output, block=block: keep(block, output)
            )
            for block, module in {**modules, "logits": self.logits}.items()
            if module
        ]
        with torch.inference_mode():
            output = network(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))
        for hook in hooks:
            hook.remove()
        if not torch.is_tensor(output):
            output = getattr(output, "logits", None)  # a tower has none
        return found if output is None else {"logits": output.numpy(), **found}

    def state(self, network: Any) -> dict[str, np.ndarray]:
        """Returns a copy of every array of the network by its key."""
        return {key: value.numpy().copy() for key, value in network.state_dict().items()}

    def load(self, network: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        """Returns the network with every array replaced.

        Raises:
            RuntimeError: If a key is missing, or one too many.
        """
        import torch

        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that arrays are read-only
            tensors = {key: torch.as_tensor(value) for key, value in arrays.items()}
        network.load_state_dict(tensors, strict=True)
        return network


class FileOriginal(Original):
    """A network of Hugging Face, by the files that it writes, whose names differ from its state dict."""

    def state(self, network: Any) -> dict[str, np.ndarray]:
        with tempfile.TemporaryDirectory() as folder:
            network.save_pretrained(folder)
            return safetensors.numpy.load_file(Path(folder, "model.safetensors"))

    def load(self, network: Any, arrays: Mapping[str, np.ndarray]) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            network.config.save_pretrained(folder)
            file = Path(folder, "model.safetensors")
            safetensors.numpy.save_file(dict(arrays), file, metadata={"format": "pt"})
            network, found = type(network).from_pretrained(folder, output_loading_info=True)
        if wrong := {what: keys for what, keys in found.items() if keys}:
            raise RuntimeError(f"read back from a file: {wrong}")
        return network


def tower(shape: Any, size: int) -> dict[str, Any]:
    """Returns the sizes of a vision transformer of ours in the form of transformers' configs."""
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.hidden or 4 * shape.width,
        "patch_size": shape.patch,
        "layer_norm_eps": shape.epsilon,
        "image_size": size,
    }


def in_transformers(
    model: str,
    make: Callable[[str, int, str], Any],
    module: Callable[[str, str], str],
    names: Iterable[str],
    **options: Any,
) -> dict[tuple[str, str], Original]:
    """Returns networks of Hugging Face, with a classifier and without.

    Args:
        model: The module of the classifier that is the network.
        make: From our name, an image size and the end of a class's name to the network.
        module: From our name and our block to the module of the network without a classifier.
        names: Ours.
        options: As for `Original`.
    """

    def classifier(name: str, size: int) -> Any:
        return make(name, size, "ForImageClassification")

    def base(name: str, size: int) -> Any:
        return make(name, size, "Model")

    def inside(name: str, block: str) -> str:
        found = module(name, block)
        return f"{model}.{found}" if found else ""

    kinds = {"transformers": (classifier, inside), "transformers-base": (base, module)}
    return {(name, library): Original(*kind, **options) for name in names for library, kind in kinds.items()}


def torchvision_network(name: str, size: int) -> Any:
    """Returns the network of that name in torchvision."""
    import torchvision

    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES)


def timm_network(name: str, size: int) -> Any:
    """Returns the network of that name in timm."""
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES)


def timm_network_of_size(name: str, size: int) -> Any:
    """Returns the network of that name in timm, with positions for images of a size."""
    import timm

    return timm.create_model(name, pretrained=False, num_classes=CLASSES, img_size=size)
