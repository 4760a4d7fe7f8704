"""The networks of Google's repositories, which are not published as packages.

Sources: https://github.com/google-research/{vision_transformer,big_vision,big_transfer} (Apache-2.0).
"""

import re

from transfer_jax.weights.constructors.constructor import Constructor, Exported, call

_VIT = re.compile(r"vit_(?P<size>tiny|small|base|large|huge)_patch(?P<patch>\d+)_\d+")
_MIXER = re.compile(r"mixer_(?P<size>[sbl])(?P<patch>\d+)_\d+")
_SIGLIP = re.compile(r"(vit|siglip)_(?P<size>base|large|so400m)_patch(?P<patch>\d+)(_siglip)?_\d+")
_BIT = re.compile(r"resnetv2_(?P<depth>\d+)x(?P<width>\d+)_bit")
_SIZES = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H", "so400m": "So400m"}
_GELU = "Google's code approximates the GELU by a hyperbolic tangent, so its outputs differ slightly."


def vision_transformer_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in vision_transformer; None if it lacks the network."""
    vit, mixer = _VIT.fullmatch(exported.model), _MIXER.fullmatch(exported.model)
    if vit:
        module, kind, name = "models_vit", "VisionTransformer", f"ViT-{_SIZES[vit['size']]}_{vit['patch']}"
    elif mixer:
        module, kind, name = "models_mixer", "MlpMixer", f"Mixer-{mixer['size'].upper()}_{mixer['patch']}"
    else:
        return None
    code = (
        f"from vit_jax import checkpoint, {module}\nfrom vit_jax.configs.models import MODEL_CONFIGS\n\n"
        f'network = {module}.{kind}(num_classes={exported.outputs}, **MODEL_CONFIGS["{name}"])\n'
        f"params = {call('checkpoint.load', exported.file)}\n\n\n"
        "def model(images):\n"
        '    return network.apply({"params": params}, images, train=False)'
    )
    return _constructor(code, "vit_jax", _GELU)


def big_vision_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in big_vision; None if it lacks the network."""
    name = exported.model
    bit, mixer, vit, siglip = (pattern.fullmatch(name) for pattern in (_BIT, _MIXER, _VIT, _SIGLIP))
    options: dict[str, object] = {"num_classes": exported.outputs}
    if bit:
        module, options["width"], options["depth"] = "bit_paper", int(bit["width"]), int(bit["depth"])
    elif mixer:
        module, options["variant"] = "mlp_mixer", f"{mixer['size'].upper()}/{mixer['patch']}"
    elif found := vit or siglip:
        module, options["variant"] = "vit", f"{_SIZES[found['size']]}/{found['patch']}"
        options["pool_type"] = "tok" if vit else "map"
    else:
        return None
    code = (
        f"from big_vision.models import {module}\n\n"
        f"network = {call(f'{module}.Model', **options)}\n"
        f"params = {module}.load(None, {call('', exported.file)[1:-1]}, {{}})\n\n\n"
        "def model(images):\n"
        '    return network.apply({"params": params}, images)[0]'
    )
    approximate = bit or name.startswith("siglip_")
    return _constructor(code, "big_vision", "" if approximate else _GELU)


def big_transfer_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in big_transfer's PyTorch code; None if it lacks the network."""
    found = _BIT.fullmatch(exported.model)
    if not found:
        return None
    code = (
        "import numpy as np\nfrom bit_pytorch.models import KNOWN_MODELS\n\n"
        f'model = KNOWN_MODELS["BiT-M-R{found["depth"]}x{found["width"]}"](head_size={exported.outputs})\n'
        f"model.load_from({call('np.load', exported.file)})\nmodel.eval()"
    )
    return Constructor(code=code, module="bit_pytorch", runtime="torch")


def _constructor(code: str, module: str, note: str) -> Constructor:
    return Constructor(code=code, module=module, runtime="function", channels_first=False, note=note)
