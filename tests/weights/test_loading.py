import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import variant_of
from transfer_jax.weights import WeightsMismatchError, find_spec, load_pretrained
from transfer_jax.weights.key_mapping import KeyMap, to_library
from transfer_jax.weights.loading import load_arrays
from transfer_jax.weights.readers import ArrayInfo, CheckpointError, LazyWeights
from transfer_jax.weights.readers.entries import several
from transfer_jax.weights.specs import WeightsSpec

TINY = "efficientnet_lite_tiny"
PREPROCESSING = variant_of(TINY).preprocessing
SPEC = WeightsSpec(name="made up", model=TINY, address="made-up.pth", preprocessing=PREPROCESSING)
KERNEL = "backbone/blocks.1/depthwise/conv/kernel"
KEY = "_blocks.1._depthwise_conv.weight"


def key_of(path: str) -> str:
    (key,) = KeyMap(TINY).keys(path)
    return key


def arrays_of(model) -> dict:
    _, params, stats = split(model)
    return {**params, **stats}


@pytest.fixture(scope="module")
def source() -> dict[str, np.ndarray]:
    """Random weights for the tiny network, in PyTorch's names and layout."""
    rng = np.random.default_rng(0)
    made = {}
    for path, array in arrays_of(create_model(TINY, 4, abstract_backbone=True)).items():
        shape = array.shape
        torch_shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
        made[key_of(path)] = rng.normal(size=torch_shape).astype(np.float32)
    made["_bn0.num_batches_tracked"] = np.array(7)
    return made


@pytest.fixture
def model():
    return create_model(TINY, 4, abstract_backbone=True)


def test_every_array_lands_in_its_place(model, source):
    report = load_arrays(model, source, SPEC, head=True)
    arrays = arrays_of(model)
    assert report.complete
    assert set(report.loaded) == set(arrays)
    for path, array in arrays.items():
        expected = source[key_of(path)]
        if expected.ndim == 4:  # (out, in, height, width) to (height, width, in, out)
            expected = np.moveaxis(expected, (2, 3, 1, 0), (0, 1, 2, 3))
        np.testing.assert_array_equal(array, expected.T if expected.ndim == 2 else expected, err_msg=path)


def test_the_new_head_stays_unless_asked_for(model, source):
    before = arrays_of(model)
    report = load_arrays(model, source, SPEC)
    for path in ("head/classifier/kernel", "head/classifier/bias"):
        assert path in report.skipped
        np.testing.assert_array_equal(arrays_of(model)[path], before[path])
    assert len(report.loaded) == len(before) - 2


def test_half_precision_files_fill_float32(model, source):
    load_arrays(model, {key: value.astype(np.float16) for key, value in source.items()}, SPEC)
    assert {str(array.dtype) for array in arrays_of(model).values()} == {"float32"}


def broken(source: dict, change: str) -> dict:
    copy = dict(source)
    if change == "missing":
        del copy[KEY]
    elif change == "unexpected":
        copy["_extra.weight"] = np.zeros(3)
    elif change == "mismatched":
        copy[KEY] = np.zeros((1, 1, 5, 5))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", f"made up do not match the network {TINY}: .*1 missing in the file: {KERNEL}$"),
        ("unexpected", r"1 unexpected in the file: _extra\.weight$"),
        (
            "mismatched",
            rf"1 of .*: {KERNEL} has shape \(3, 3, 1, \d+\), but {KEY} .* has \(1, 1, 5, 5\)$",
        ),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(source, change, message):
    model = create_model(TINY, 4)
    before = arrays_of(model)
    with pytest.raises(WeightsMismatchError, match=message):
        load_arrays(model, broken(source, change), SPEC)
    for path, array in arrays_of(model).items():
        assert array is before[path], path


def test_long_lists_are_abridged(model):
    count = len(arrays_of(model)) - 2
    with pytest.raises(WeightsMismatchError, match=rf"{count} missing in the file: .*and {count - 3} more"):
        load_arrays(model, {}, SPEC)


@pytest.mark.parametrize(
    ("change", "skip", "skipped"),
    [
        ("missing", [r"blocks\.1/depthwise/conv"], KERNEL),
        ("mismatched", [r"depthwise/conv/kernel$"], KERNEL),
        ("unexpected", [r"^_extra"], "_extra.weight"),
        ("none", [r"blocks\.1/depthwise/conv"], KERNEL),  # a path of the model
        ("none", [r"^_blocks\.1\._depthwise_conv"], KERNEL),  # a key of the file
    ],
)
def test_skipped_parameters_are_unchanged(source, change, skip, skipped):
    model = create_model(TINY, 4)
    before = arrays_of(model)
    report = load_arrays(model, broken(source, change), SPEC, skip=skip)
    assert skipped in report.skipped
    assert skipped not in report.loaded
    np.testing.assert_array_equal(arrays_of(model)[KERNEL] == before[KERNEL], skipped == KERNEL)


def test_load_pretrained_reads_the_file_of_a_spec(tmp_path, model, source):
    path = tmp_path / "weights.safetensors"
    save_file(source, path)
    report = load_pretrained(model, find_spec(TINY, str(path)))
    assert str(report) == f"{len(arrays_of(model)) - 2} loaded, 2 skipped"
    np.testing.assert_array_equal(arrays_of(model)["backbone/stem/norm/var"], source["_bn0.running_var"])


def test_the_published_weights_fill_lite0_completely(lite0):
    for path, array in lite0[1].items():
        assert isinstance(array, jax.Array), path
        assert np.isfinite(np.asarray(array)).all(), path


def test_a_network_for_other_images_is_filled_and_the_report_says_how():
    name = "vit_tiny_patch16_224"
    theirs = to_library(name, arrays_of(create_model(name, 4)))
    model = create_model(name, 4, image_size=96, channels=1, abstract_backbone=True)
    spec = dataclasses.replace(SPEC, model=name)
    report = load_arrays(model, theirs, spec, head=True)
    assert report.complete
    assert report.adapted == (
        "backbone/embed/patch/kernel summed over its 3 channels",
        "backbone/embed/pos_embed resampled from 14x14 to 6x6",
    )
    assert "resampled from 14x14 to 6x6" in str(report)
    assert arrays_of(model)["backbone/embed/pos_embed"].shape == (1, 37, 192)
    model.eval()
    assert model(jax.numpy.zeros((2, 96, 96, 1))).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "besides"),
    [
        ("deit_tiny_distilled_patch16_224", ["head_dist.weight", "head_dist.bias"]),
        ("vit_base_patch16_224.mae", ["decoder.decoder_embed.weight", "decoder.decoder_norm.bias"]),
        ("vit_base_patch32_clip_224", ["text_model.embeddings.position_embedding.weight", "logit_scale"]),
    ],
)
def test_parts_of_published_files_that_have_no_place_are_left_out(name, besides):
    library = "timm" if "deit" in name else "transformers"
    _, params, _ = split(create_model(name, 4))
    backbone = {path: np.asarray(array) for path, array in params.items() if path.startswith("backbone/")}
    source = {**to_library(name, backbone, library), **{key: np.zeros(3, np.float32) for key in besides}}
    spec = WeightsSpec(name=name, model=name, address="x", preprocessing=PREPROCESSING)
    report = load_arrays(create_model(name, 4, abstract_backbone=True), source, spec)
    assert report.complete
    assert set(besides) <= set(report.skipped)


@pytest.mark.parametrize("library", [None, "transfer_jax"])
def test_the_file_may_change_afterwards(tmp_path, library):
    made = arrays_of(create_model(TINY, 4))
    path = tmp_path / "weights.safetensors"
    save_file(to_library(TINY, made, library), path)
    model = create_model(TINY, 4, abstract_backbone=True, abstract_head=True)
    load_pretrained(model, find_spec(TINY, str(path)), head=True)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    for name, array in arrays_of(model).items():
        np.testing.assert_array_equal(array, made[name], err_msg=name)


def test_nothing_is_compiled_for_a_model_from_a_file(tmp_path, source, caplog):
    path = tmp_path / "weights.safetensors"
    save_file(source, path)
    jax.clear_caches()
    with jax.log_compiles():
        model = create_model(TINY, 4, abstract_backbone=True, abstract_head=True)
        load_pretrained(model, find_spec(TINY, str(path)), head=True)
        assert not caplog.messages
        jax.jit(lambda x: x + 1)(np.ones(3))
    assert caplog.messages


def test_a_head_that_nothing_fills_is_an_error(source):
    model = create_model(TINY, 4, abstract_backbone=True, abstract_head=True)
    with pytest.raises(WeightsMismatchError, match="abstract model have no values: head/classifier/"):
        load_arrays(model, source, SPEC)


def test_a_wrapped_network_with_other_arrays_beside_it_is_loaded_and_the_report_says_so(source):
    wrapped = {f"model.net.{key}": value for key, value in source.items() if not key.startswith("_fc")}
    beside = {
        "loss_fn.weight": np.ones(3),
        "model.net._fc.1.weight": np.ones((7, 9)),
        "n_averaged": np.array(2),
    }
    profiled = {"model.net._blocks.0.total_ops": np.zeros(1)}
    model = create_model(TINY, 4, abstract_backbone=True)
    report = load_arrays(model, {**wrapped, **beside, **profiled}, SPEC)
    assert report.complete
    assert report.notes == (
        "the network is below 'model.net.' in the file",
        "2 arrays of the file are not used: loss_fn.weight, model.net._fc.1.weight",
    )
    np.testing.assert_array_equal(arrays_of(model)["backbone/stem/norm/var"], source["_bn0.running_var"])


@pytest.mark.parametrize("entry", ["teacher", "teacher."])
def test_an_entry_chooses_between_two_networks(tmp_path, source, entry):
    path = tmp_path / "weights.safetensors"
    both = {
        f"{name}.{key}": np.asarray(value + n)
        for n, name in enumerate(("student", "teacher"))
        for key, value in source.items()
    }
    save_file(both, path)
    model = create_model(TINY, 4, abstract_backbone=True)
    with pytest.raises(
        ValueError, match=r"weights\.safetensors: .*'student', 'teacher'.*--weights-entry student"
    ):
        load_pretrained(model, find_spec(TINY, str(path)))
    load_pretrained(model, find_spec(TINY, str(path), entry))
    np.testing.assert_array_equal(arrays_of(model)["backbone/stem/norm/var"], source["_bn0.running_var"] + 1)
    with pytest.raises(ValueError, match="no entry 'ema'; choose from 'student', 'teacher'"):
        load_pretrained(model, find_spec(TINY, str(path), "ema"))


def test_of_several_entries_the_one_with_the_network_is_taken(monkeypatch, source, model):
    shapes = {
        "generator": {"up.weight": (3, 3)},
        "encoder": {key: value.shape for key, value in source.items()},
    }
    weights = LazyWeights(
        "x",
        {key: value.copy for key, value in source.items()},
        {key: ArrayInfo(value.shape, "float32") for key, value in source.items()},
    )

    def read(path, *, entry=None):
        if entry is None:
            raise several(shapes)
        assert entry == "encoder"
        return weights

    monkeypatch.setattr("transfer_jax.weights.loading.read_weights", read)
    monkeypatch.setattr(WeightsSpec, "path", lambda spec: Path("x"))
    assert load_pretrained(model, SPEC).complete
    shapes["ema"] = shapes["encoder"]
    with pytest.raises(ValueError, match="several state dicts: 'encoder', 'ema'; choose one"):
        load_pretrained(model, SPEC)


def test_weights_of_a_larger_network_of_the_family_are_not_a_head():
    arrays = {
        key: np.asarray(value)
        for key, value in to_library("resnet34", arrays_of(create_model("resnet34", 3))).items()
    }
    spec = dataclasses.replace(SPEC, model="resnet18")
    with pytest.raises(
        WeightsMismatchError, match=r"unexpected in the file: layer1\.2.*; the file fits resnet34$"
    ):
        load_arrays(create_model("resnet18", 3, abstract_backbone=True), arrays, spec)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_an_error_that_names_the_array(model, source, value):
    changed = {key: array.copy() for key, array in source.items()}
    changed[KEY][0, 0, 1] = value
    with pytest.raises(CheckpointError, match=rf"the array {KEY} has 3 values that are NaN or infinite; "):
        load_arrays(model, changed, SPEC)
    changed["_bn0.running_var"][:] = value
    with pytest.raises(CheckpointError, match=r"NaN or infinite, and so has 1 other array \("):
        load_arrays(model, changed, SPEC)
    model = create_model(TINY, 4)
    assert load_arrays(model, changed, SPEC, skip=[r"blocks\.1/depthwise/conv", "stem/norm/var"])


def test_a_large_double_is_infinite_in_float32(model, source):
    changed = {**source, KEY: source[KEY].astype(np.float64) + 1e300}
    with pytest.raises(CheckpointError, match=f"the array {KEY} has"):
        load_arrays(model, changed, SPEC)
