import numpy as np
import pytest

from transfer_jax.models import create_model
from transfer_jax.models.family import Family
from transfer_jax.models.functional import split
from transfer_jax.models.registry import FAMILIES, family_of, variant_of
from transfer_jax.weights.convert import WeightsMismatchError, fill
from transfer_jax.weights.naming import Naming, to_library
from transfer_jax.weights.recognize import matching_models, nearest_families
from transfer_jax.weights.specs import WeightsSpec


def published(model: str, library: str, **setting) -> dict[str, np.ndarray]:
    """The arrays of a network, without values, as a file of a library has them; with any classifier."""
    classifier = create_model(model, 10, abstract_backbone=True, **setting)
    _, params, stats = split(classifier)
    naming = Naming(model, library)
    arrays = {
        path: np.broadcast_to(np.float32(0), array.shape)
        for path, array in {**params, **stats}.items()
        if naming.keys(path) or not path.startswith("head/")
    }
    return to_library(model, arrays, library)


def first(family: Family, library: str) -> str:
    """The first network of a family, or the first that is made for a library."""
    prefixes = {"keras": ("keras_", "tf_")}.get(library, ())
    return next((name for name in family.variants if name.startswith(prefixes)), next(iter(family.variants)))


@pytest.mark.parametrize(
    ("model", "library"),
    [(first(family, library), library) for family in FAMILIES for library in family.namings],
)
def test_every_family_is_recognized_in_every_naming(model, library):
    keys = published(model, library)
    nearest = nearest_families(keys)
    assert nearest[0].family == family_of(model).name
    assert nearest[0].share >= 0.5  # the keys of a classifier may be as many kinds
    assert all(nearest[0].share > other.share for other in nearest[1:])
    assert len(nearest) <= 3


@pytest.mark.parametrize(
    ("model", "library", "setting"),
    [
        ("resnet50", "torchvision", {}),
        ("vgg16", "torchvision", {}),
        ("vit_small_patch16_224", "timm", {"image_size": 96}),
        ("vit_small_patch14_dinov2", "transformers-base", {"image_size": 224}),
        ("vit_base_patch32_clip_224", "transformers", {}),
        ("siglip_base_patch16_224", "timm", {}),
        ("swin_tiny_patch4_window7_224", "transformers-5", {}),
    ],
)
def test_shapes_tell_the_network(model, library, setting):
    arrays = published(model, library, **setting)
    shapes = {key: array.shape for key, array in arrays.items()}
    fitting = matching_models(shapes, nearest_families(shapes)[0])
    assert model in fitting
    other = dict(list(shapes.items())[1:])
    assert model not in matching_models(other, nearest_families(shapes)[0])


def test_nothing_is_like_a_teapot():
    assert nearest_families(["teapot"]) == []


def test_the_wrong_family_is_named_with_the_nearest():
    model = create_model("efficientnet_lite_tiny", 4)
    source = published("resnet18", "torchvision")
    preprocessing = variant_of("resnet18").preprocessing
    spec = WeightsSpec(name="mine", model="efficientnet_lite_tiny", address="x", preprocessing=preprocessing)
    with pytest.raises(WeightsMismatchError, match=r"its keys are most like resnet \(torchvision, \d+% of"):
        fill(model, source, spec)
