"""The EfficientNet-Lites of the package that their weights were converted for."""

import re

from transfer_jax.weights.constructors.constructor import Constructor, Exported, call

_LITE = re.compile(r"efficientnet_lite(?P<scale>\d)")


def efficientnet_pytorch_constructor(exported: Exported) -> Constructor | None:
    """Returns the constructor of a network in `efficientnet_lite_pytorch`; None if it lacks the network."""
    found = _LITE.fullmatch(exported.model)
    if not found:
        return None
    made = call("EfficientNet.from_name", f"efficientnet-lite{found['scale']}", num_classes=exported.outputs)
    code = (
        "from efficientnet_lite_pytorch import EfficientNet\nfrom safetensors.torch import load_file\n\n"
        f"model = {made}\nmodel.load_state_dict({call('load_file', exported.file)})\nmodel.eval()"
    )
    return Constructor(code=code, module="efficientnet_lite_pytorch", runtime="torch")
