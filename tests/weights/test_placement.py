import numpy as np
import pytest

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.weights.key_mapping import KeyMap
from transfer_jax.weights.placement import find_network, shapes_of
from transfer_jax.weights.readers import SeveralStateDictsError

TINY = "efficientnet_lite_tiny"


def targets_of(model: str) -> dict[str, tuple[int, ...]]:
    _, params, stats = split(create_model(model, 3, abstract_backbone=True, abstract_head=True))
    return shapes_of({**params, **stats})


def theirs(model: str, library: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a file of a library, flat: only their sizes matter here."""
    key_map = KeyMap(model, library)
    shapes = {}
    for path, shape in targets_of(model).items():
        for key in key_map.keys(path):
            shapes[key] = (int(np.prod(shape)) // len(key_map.keys(path)),)
    return shapes


def place(model: str, shapes: dict[str, tuple[int, ...]]):
    targets = targets_of(model)
    return find_network(model, targets, shapes, [path for path in targets if path.startswith("backbone/")])


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model._orig_mod.", "features.", "blocks.0.", "params/net/", "a.b.c.d.e.f."]
)
@pytest.mark.parametrize(
    ("model", "library"), [(TINY, "timm"), ("resnet18", "timm"), ("vgg11", "torchvision")]
)
def test_any_prefix_is_found(model, library, prefix):
    found = place(model, {prefix + key: shape for key, shape in theirs(model, library).items()})
    assert (found.prefix, found.complete) == (prefix, True)
    assert found.key_map.library in (library, "torchvision")  # the two have the same names of some networks


@pytest.mark.parametrize(
    ("model", "library", "begins"),
    [
        ("vit_base_patch16_224", "torchvision", "encoder."),
        ("vit_base_patch16_224", "transformers", "vit."),
        ("resnet18", "transformers", "resnet."),
        ("resnet18", "transformers-base", "encoder."),
        ("vit_base_patch32_clip_224", "transformers", "vision_model."),
    ],
)
def test_names_that_begin_like_a_wrapper_are_names(model, library, begins):
    shapes = theirs(model, library)
    assert sum(key.startswith(begins) for key in shapes) > len(shapes) / 2
    plain, wrapped = (
        place(model, shapes),
        place(model, {f"encoder.{key}": shape for key, shape in shapes.items()}),
    )
    assert (plain.prefix, plain.key_map.library, plain.complete) == ("", library, True)
    assert (wrapped.prefix, wrapped.key_map.library) == ("encoder.", library)


def test_a_copy_beside_the_plain_network_is_not_taken():
    shapes = theirs(TINY, "timm")
    found = place(TINY, {**{f"ema_model.module.{key}": shape for key, shape in shapes.items()}, **shapes})
    assert (found.prefix, found.complete) == ("", True)


@pytest.mark.parametrize("state", ["opt_state/mu/", "optimizer.exp_avg.", "opt/", "momentum_buffer."])
def test_the_state_of_an_optimizer_is_no_copy(state):
    shapes = theirs(TINY, "timm")
    both = {prefix + key: shape for prefix in (state, "state/params/") for key, shape in shapes.items()}
    assert place(TINY, both).prefix == "state/params/"


def test_two_copies_with_prefixes_are_ambiguous():
    shapes = theirs(TINY, "timm")
    both = {
        f"{name}.backbone.{key}": shape for name in ("student", "teacher") for key, shape in shapes.items()
    }
    with pytest.raises(
        SeveralStateDictsError, match=r"'student\.backbone', 'teacher\.backbone'; choose"
    ) as caught:
        place(TINY, both)
    assert set(caught.value.shapes) == {"student.backbone", "teacher.backbone"}


def test_shapes_decide_between_two_networks_with_the_same_names():
    """The names of ResNet-34 are those of a part of ResNet-50, whose arrays are larger."""
    teacher = {f"teacher.{key}": shape for key, shape in theirs("resnet50", "timm").items()}
    student = {f"student.{key}": shape for key, shape in theirs("resnet34", "timm").items()}
    assert place("resnet34", {**teacher, **student}).prefix == "student."
    assert place("resnet50", {**teacher, **student}).prefix == "teacher."


def test_a_network_that_is_nowhere_has_no_prefix():
    found = place(TINY, theirs("resnet18", "timm"))
    assert (found.prefix, found.complete) == ("", False)


def test_a_network_that_is_almost_complete_keeps_its_prefix():
    shapes = {f"net.{key}": shape for key, shape in theirs(TINY, "timm").items()}
    shapes.pop("net.conv_stem.weight")
    found = place(TINY, shapes)
    assert (found.prefix, found.complete) == ("net.", False)


def test_an_application_of_keras_inside_of_a_model_is_found():
    application = theirs("keras_mobilenet_v2_035", "keras")
    wrapped = {f"mobilenetv2_0.35_96/{key}": shape for key, shape in application.items()}
    found = place("keras_mobilenet_v2_035", {**wrapped, "dense/kernel": (1280, 5)})
    assert (found.prefix, found.complete) == ("mobilenetv2_0.35_96/", True)
