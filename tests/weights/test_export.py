import dataclasses
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from originals.keras_api import import_keras
from safetensors import safe_open
from safetensors.numpy import load_file

from transfer_jax.models import Classifier, create_model
from transfer_jax.models.flat_arrays import merge, split, update
from transfer_jax.models.registry import variant_of
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.check_image import check_image
from transfer_jax.weights.export import export_model, suffix
from transfer_jax.weights.export_record import KEY, file_beside
from transfer_jax.weights.key_mapping import KeyMap
from transfer_jax.weights.readers import read_weights
from transfer_jax.weights.saved_model import SavedModel
from transfer_jax.weights.verify import VerificationError, verify_export
from transfer_jax.weights.writers import file_kind

CLASSES = ("ant", "bee", "cat", "dog", "eel")


def on_demand(*models: str) -> list:
    """Returns models as parameters of extended tests."""
    return [pytest.param(model, marks=pytest.mark.extended) for model in models]


def pixels_for(model: str) -> np.ndarray:
    """Returns three images of the size of a model."""
    size = variant_of(model).preprocessing.image_size
    return np.random.default_rng(0).uniform(0, 255, (3, size, size, 3)).astype(np.float32)


def save(model: str, folder: Path, hidden: tuple[int, ...] = ()) -> tuple[SavedModel, Classifier]:
    """Saves a network with a new head, as a run does."""
    network = create_model(model, len(CLASSES), hidden=hidden)
    network.eval()
    _, params, stats = split(network)
    rng = np.random.default_rng(0)
    stats = {path: array * rng.uniform(0.8, 1.2, array.shape) for path, array in stats.items()}
    update(network, stats)
    saved = SavedModel(
        model=model, task=SingleLabel(CLASSES), preprocessing=variant_of(model).preprocessing, hidden=hidden
    )
    saved.save(folder / "model", {**params, **stats})
    return saved, network


def trained(model: str, folder: Path, hidden: tuple[int, ...] = ()) -> np.ndarray:
    """Saves a network with a new head, as a run does; returns its logits."""
    saved, network = save(model, folder, hidden)
    graphdef, params, stats = split(network)
    run = jax.jit(lambda arrays, x: merge(graphdef, arrays)(saved.preprocessing.normalize(x)))
    return np.asarray(run({**params, **stats}, pixels_for(model)))


@pytest.mark.extended
@pytest.mark.parametrize(
    ("library", "model"),
    [
        ("timm", "efficientnet_lite0"),
        ("torchvision", "mobilenet_v3_small"),
        ("transformers", "resnet18"),
    ],
)
def test_a_trained_model_gives_the_same_outputs_elsewhere(library, model, tmp_path):
    for package in ("torch", library):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    save(model, tmp_path, variant_of(model).hidden)
    exported = export_model(tmp_path, library, tmp_path / "theirs.safetensors")
    result = verify_export(exported.file, exported.record)
    assert result.difference <= exported.record.tolerance
    assert result.library.split()[0] == library


@pytest.mark.extended
def test_a_network_with_the_same_arrays_that_computes_something_else_fails(tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    save("efficientnet_lite0", tmp_path)
    exported = export_model(tmp_path, "timm", tmp_path / "theirs.safetensors")
    other = exported.record.load.replace("tf_efficientnet_lite0", "efficientnet_lite0")
    with pytest.raises(VerificationError, match="computes other outputs with timm"):
        verify_export(exported.file, dataclasses.replace(exported.record, load=other))


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("model", "kind", "normalizes"),
    [
        ("keras_resnet50", "ResNet50", False),
        ("keras_mobilenet_v3_small", "MobileNetV3Small", True),
        ("tf_efficientnet_b0", "EfficientNetB0", True),
    ],
)
def test_a_trained_model_gives_the_same_logits_in_keras(model, kind, normalizes, tmp_path):
    """And the same arrays, bit for bit, when Keras writes them again."""
    pytest.importorskip("keras", reason="keras is not installed")
    pytest.importorskip("h5py", reason="h5py is not installed")
    expected = trained(model, tmp_path, variant_of(model).hidden)
    exported = export_model(tmp_path, "keras", tmp_path / "theirs.h5")
    file = exported.file
    if normalizes:
        assert verify_export(file, exported.record).difference <= exported.record.tolerance
    assert json.loads(file_beside(file).read_text())["load"] == exported.record.load
    network = getattr(import_keras().applications, kind)(
        weights=None, classes=len(CLASSES), classifier_activation=None
    )
    network.load_weights(file)
    pixels = (
        pixels_for(model)
        if normalizes
        else np.asarray(variant_of(model).preprocessing.normalize(jnp.array(pixels_for(model))))
    )
    found = network.predict(pixels, verbose=0)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    network.save_weights(tmp_path / "again.weights.h5")
    again, ours = read_weights(tmp_path / "again.weights.h5"), read_weights(file)
    assert {key for key in {*again} ^ {*ours} if not key.endswith("seed_generator_state")} == set()
    for key in ours:
        np.testing.assert_array_equal(again[key], ours[key], err_msg=key)


@pytest.mark.parametrize(
    ("library", "model"),
    [
        ("vision_transformer", "vit_tiny_patch16_224"),
        ("big_vision", "mixer_s32_224"),
        ("big_transfer", "resnetv2_50x1_bit"),
    ],
)
def test_google_gets_its_npz(library, model):
    network = create_model(model, len(CLASSES))
    _, params, _ = split(network)
    saved = SavedModel(
        model=model, task=SingleLabel(CLASSES), preprocessing=variant_of(model).preprocessing, hidden=()
    )
    assert suffix(library) == ".npz"
    content = file_kind(library).write(saved, network, library, {})
    key_map, read = KeyMap(model, library), np.load(io.BytesIO(content))
    for path, array in params.items():
        taken = key_map.import_array(path, [read[key] for key in key_map.keys(path)])
        assert taken is not None
        assert taken.tobytes() == np.asarray(array).tobytes(), path


def test_our_own_names(tmp_path):
    save("efficientnet_lite_tiny", tmp_path)
    file = export_model(tmp_path, "safetensors", tmp_path / "ours.safetensors").file
    assert load_file(file).keys() == load_file(tmp_path / "model" / "weights.safetensors").keys()


PROGRAM = """
import sys
import numpy as np
from jax import export
program = export.deserialize(open(sys.argv[1], "rb").read())
pixels = np.load(sys.argv[2])
np.save(sys.argv[3], np.concatenate([program.call(pixels[:2]), program.call(pixels[2:])]))
assert "transfer_jax" not in sys.modules
"""


@pytest.mark.parametrize(
    "model", ["efficientnet_lite_tiny", *on_demand("mobilenet_v2", "vit_tiny_patch16_224")]
)
def test_a_program_runs_without_the_package_for_any_batch(model, tmp_path):
    expected = trained(model, tmp_path)
    program = export_model(tmp_path, "stablehlo", tmp_path / "net.stablehlo").file
    np.save(tmp_path / "pixels.npy", pixels_for(model))
    arguments = [str(program), str(tmp_path / "pixels.npy"), str(tmp_path / "logits.npy")]
    subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True)
    found = np.load(tmp_path / "logits.npy")
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    "model",
    ["efficientnet_lite_tiny", *on_demand("efficientnet_lite0", "squeezenet1_1", "vit_tiny_patch16_224")],
)
def test_onnxruntime_gives_the_same_logits_for_any_batch(model, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    expected = trained(model, tmp_path)
    file = export_model(tmp_path, "onnx", tmp_path / "net.onnx").file
    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    pixels = pixels_for(model)
    assert session.get_inputs()[0].shape == ["b", *pixels.shape[1:]]
    assert session.get_outputs()[0].shape == ["b", len(CLASSES)]
    for batch in (1, 3):
        (found,) = session.run(None, {"pixels": pixels[:batch]})
        assert np.abs(np.asarray(found) - expected[:batch]).max() <= 1e-4 * np.abs(expected).max()


def run_program(target: str, file: Path, images: np.ndarray) -> np.ndarray:
    """Runs an exported program."""
    if target == "stablehlo":
        from jax import export

        return np.asarray(export.deserialize(bytearray(file.read_bytes())).call(images))
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(found)


@pytest.mark.parametrize("target", ["stablehlo", "onnx"])
@pytest.mark.parametrize(("values", "output"), [("uint8", "predictions"), ("normalized", "logits")])
def test_the_input_and_the_output_of_a_program_by_choice(target, values, output, tmp_path):
    saved, network = save("vit_nano_patch8_32", tmp_path)
    exported = export_model(tmp_path, target, tmp_path / "net", values=values, output=output)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    normalized = saved.preprocessing.normalize(jnp.asarray(pixels))
    expected = np.asarray(network(normalized))
    if output == "predictions":
        expected = saved.task.predictions(expected)
    images = np.asarray(normalized) if values == "normalized" else pixels.astype(values)
    found = run_program(target, exported.file, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert exported.record.dtype == str(images.dtype)
    record = stored_record(target, exported.file)
    assert record["classes"] == list(CLASSES)
    assert (record["input"]["dtype"], record["output"]) == (exported.record.dtype, output)
    checked = run_program(target, exported.file, exported.record.images())
    assert np.abs(checked[0] - exported.record.outputs).max() <= exported.record.tolerance


def stored_record(target: str, file: Path) -> dict:
    """Returns the record in the metadata of a file, or beside it."""
    if target in ("timm", "safetensors"):
        with safe_open(file, "np") as opened:
            return json.loads(opened.metadata()[KEY])
    if target == "onnx":
        onnx = pytest.importorskip("onnx", reason="onnx is not installed")
        entries = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        return json.loads(entries[KEY])
    return json.loads(file_beside(file).read_text())


@pytest.mark.parametrize("target", ["timm", "safetensors"])
def test_the_record_is_stored_with_the_file(target, tmp_path):
    saved, network = save("vit_nano_patch8_32", tmp_path)
    exported = export_model(tmp_path, target, tmp_path / f"net{suffix(target)}")
    record = stored_record(target, exported.file)
    assert record["classes"] == list(CLASSES)
    assert record["preprocessing"]["mean"] == list(saved.preprocessing.mean)
    assert exported.file.name in record["load"]
    pixels = check_image(32)
    expected = np.asarray(network(saved.preprocessing.normalize(jnp.asarray(pixels))))[0]
    np.testing.assert_allclose(record["check"]["outputs"], expected, rtol=1e-4, atol=1e-5)
    lines = "\n".join(exported.record.lines())
    for text in (*record["load"].split("\n"), "ant, bee, cat, dog, eel", "resized to 32 x 32 pixels"):
        assert text in lines
    assert not file_beside(exported.file).exists()


@pytest.mark.parametrize(
    ("target", "package", "extra"), [("stablehlo", "flatbuffers", "export"), ("onnx", "onnx", "onnx")]
)
def test_a_missing_package_is_named_with_its_extra(target, package, extra, tmp_path, monkeypatch):
    save("efficientnet_lite_tiny", tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"{package} is not installed; pip install 'transfer_jax\[{extra}\]'"
    with pytest.raises(ImportError, match=message):
        export_model(tmp_path, target, tmp_path / "net")


@pytest.mark.parametrize(
    ("model", "target", "out", "message"),
    [
        (
            "efficientnet_lite_tiny",
            "keras3",
            "x",
            "'keras3' is not supported for .*; choose from .*stablehlo, onnx",
        ),
        ("efficientnet_lite_tiny", "safetensors", "no/x", "the folder .*no does not exist"),
        ("resnet18", "keras", "x.h5", "'keras' is not supported for resnet18; choose from torchvision, timm"),
        ("efficientnet_lite_tiny", "timm", "x", "'timm' is not supported for efficientnet_lite_tiny"),
        (
            "keras_resnet50",
            "keras",
            "x.weights.h5",
            r"invalid file name x\.weights\.h5: for Keras, it must end",
        ),
        ("vgg11", "timm", "x", r"has the hidden layers \(4096, 4096\), but this model has \(\)"),
    ],
)
def test_unsupported_exports_are_refused(model, target, out, message, tmp_path):
    save(model, tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export_model(tmp_path, target, tmp_path / out)
    assert not (tmp_path / out).exists()


def test_a_file_of_weights_has_no_choice_of_input(tmp_path):
    save("efficientnet_lite_tiny", tmp_path)
    with pytest.raises(ValueError, match="chosen only for stablehlo and onnx; a file for safetensors"):
        export_model(tmp_path, "safetensors", tmp_path / "x", values="uint8")
    assert not (tmp_path / "x").exists()
