"""Files in the names of this package, and programs."""

from transfer_jax.weights.constructors.constructor import Constructor, Exported, call


def own_constructor(exported: Exported) -> Constructor:
    """Returns the code that loads a file in the names of this package."""
    options = {"hidden": exported.hidden} if exported.hidden else {}
    options = {**options, "taps": True} if exported.taps else options
    made = call(
        "create_model",
        exported.model,
        exported.outputs,
        **options,
        image_size=exported.image_size,
        abstract_backbone=True,
        abstract_head=True,
    )
    code = (
        "import jax\nfrom safetensors.numpy import load_file\nfrom transfer_jax.models import create_model\n"
        "from transfer_jax.models.flat_arrays import update\n\n"
        f"model = {made}\nupdate(model, jax.device_put({call('load_file', exported.file)}))\nmodel.eval()"
    )
    return Constructor(code=code, module="transfer_jax", runtime="function", channels_first=False)


def onnx_constructor(exported: Exported) -> Constructor:
    """Returns the code that opens an ONNX program."""
    made = call("onnxruntime.InferenceSession", exported.file, providers=["CPUExecutionProvider"])
    return _program(f"import onnxruntime\n\nmodel = {made}", "onnxruntime", "onnxruntime")


def stablehlo_constructor(exported: Exported) -> Constructor:
    """Returns the code that reads a StableHLO program."""
    code = (
        "from pathlib import Path\n\nfrom jax import export\n\n"
        f"program = export.deserialize(bytearray({call('Path', exported.file)}.read_bytes()))\n"
        "model = program.call"
    )
    return _program(code, "jax", "function")


def _program(code: str, module: str, runtime: str) -> Constructor:
    return Constructor(
        code=code,
        module=module,
        runtime=runtime,  # pyright: ignore[reportArgumentType]
        channels_first=False,
        normalized=False,
    )
