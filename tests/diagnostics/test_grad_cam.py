import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.diagnostics.grad_cam import last_spatial_block, make_grad_cam
from transfer_jax.features import FeatureShapes
from transfer_jax.models import PRE_LOGITS, Backbone, Classifier, Head, Preprocessing, create_model
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.registry import variant_of
from transfer_jax.nn.initializers import NumpyRngs
from transfer_jax.nn.layers import Conv, GlobalPool

PREPROCESSING = Preprocessing(image_size=32, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
DARK, BRIGHT = 0, 1


class Patches(Conv):
    """A convolution as a block."""

    def __call__(self, x, rngs=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().__call__(x)


@pytest.fixture(scope="module")
def network():
    """A network with one channel for bright and one for dark 8x8 patches."""
    conv = Patches(3, 2, 8, strides=8, padding="VALID", use_bias=True, rngs=NumpyRngs(0))
    model = Classifier(Backbone({"stem": conv, PRE_LOGITS: GlobalPool()}, 2), Head(2, 2, rngs=NumpyRngs(0)))
    model.eval()
    graphdef, params, stats = split(model)
    bright = np.full((8, 8, 3), 1 / (8 * 8 * 3), np.float32)
    arrays = {
        **params,
        **stats,
        "backbone/stem/kernel": jnp.asarray(np.stack([-bright, bright], -1)),
        "backbone/stem/bias": jnp.array([1.0, 0.0]),
        "head/classifier/kernel": jnp.eye(2),
    }
    return graphdef, arrays


@pytest.mark.parametrize("corner", [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_maps_show_the_evidence(network, corner):
    graphdef, arrays = network
    image = np.zeros((32, 32, 3), np.uint8)
    row, column = (8 * place for place in corner)
    image[row : row + 8, column : column + 8] = 255
    grad_cam = make_grad_cam(graphdef, PREPROCESSING, "stem")
    bright, dark = np.asarray(grad_cam(arrays, jnp.asarray([image, image]), jnp.array([BRIGHT, DARK])))
    expected = np.zeros((4, 4))
    expected[corner] = 1
    np.testing.assert_allclose(bright, expected, atol=1e-5)
    np.testing.assert_allclose(dark, 1 - expected, atol=1e-5)


def test_evidence_against_a_class_is_not_shown(network):
    graphdef, arrays = network
    against = {**arrays, "head/classifier/kernel": -jnp.eye(2)}
    grad_cam = make_grad_cam(graphdef, PREPROCESSING, "stem")
    image = np.full((1, 32, 32, 3), 255, np.uint8)
    assert not np.asarray(grad_cam(against, jnp.asarray(image), jnp.array([BRIGHT]))).any()


@pytest.mark.parametrize(
    ("shapes", "block"),
    [
        ({"a": (8, 8, 3), "b": (4, 4, 9), "c": (1, 1, 9), "pre_logits": (9,)}, "b"),
        ({"a": (8, 8, 3), "b": (4, 1, 9), "pre_logits": (9,)}, "a"),
        ({"stem": (49, 16), "norm": (49, 8), "pre_logits": (8,)}, "norm"),
        ({"stem": (50, 16), "pre_logits": (16,)}, None),
        ({"stem": (1, 1, 4), "pre_logits": (4,)}, None),
    ],
)
def test_the_last_spatial_block(shapes, block):
    arrays = {name: {"features": jax.ShapeDtypeStruct(shape, jnp.float32)} for name, shape in shapes.items()}
    assert last_spatial_block(arrays) == block


def test_a_block_with_several_arrays_is_not_spatial():
    maps = jax.ShapeDtypeStruct((8, 8, 3), jnp.float32)
    shapes = {"a": {"features": maps}, "b": {"features_0": maps, "features_1": maps}}
    assert last_spatial_block(shapes) == "a"


OTHERS = (
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "squeezenet1_1",
    "vgg11",
    "resnetv2_50",
    "regnet_y_400mf",
    "inception_v3",
    "xception",
    "convnext_tiny",
    "mixer_s32_224",
)


@pytest.mark.parametrize(
    "name",
    [
        "efficientnet_lite0",
        "resnet18",
        "swin_tiny_patch4_window7_224",
        *(pytest.param(name, marks=pytest.mark.extended) for name in OTHERS),
    ],
)
def test_a_network_of_each_family(name):
    model = create_model(name, 2, abstract_backbone=True, abstract_head=True)
    model.eval()
    graphdef, params, stats = split(model)
    arrays, preprocessing = {**params, **stats}, variant_of(name).preprocessing
    size = preprocessing.image_size
    shapes = FeatureShapes(graphdef, arrays, size)
    block = last_spatial_block(shapes)
    assert block is not None
    images, classes = (
        jax.ShapeDtypeStruct((2, size, size, 3), jnp.uint8),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )
    found = jax.eval_shape(make_grad_cam(graphdef, preprocessing, block), arrays, images, classes)
    assert found.shape[0] == 2
    assert 5 <= found.shape[1] == found.shape[2] <= 13
