import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.models import create_model
from transfer_jax.models.flat_arrays import merge, split
from transfer_jax.weights import find_spec, load_pretrained

CATS = range(281, 286)
ESPRESSO = 967


@pytest.mark.parametrize(
    ("name", "parameters", "blocks"),
    [  # the numbers of parameters are those of the PyTorch conversion
        ("efficientnet_lite0", 4_652_008, 16),
        ("efficientnet_lite1", 5_416_680, 21),
        ("efficientnet_lite2", 6_092_072, 21),
        ("efficientnet_lite3", 8_197_096, 24),
        ("efficientnet_lite4", 13_006_568, 30),
    ],
)
def test_published_sizes(name, parameters, blocks):
    model = create_model(name, 1000, abstract_backbone=True)
    assert sum(x.size for x in split(model)[1].values()) == parameters
    names = ("stem", *(f"blocks.{index}" for index in range(blocks)), "top", "pre_logits")
    assert model.backbone.block_names == names


def test_spatial_sizes(lite0):
    graphdef, arrays = lite0
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)

    def shape(boundary: str) -> tuple[int, ...]:
        run = lambda arrays, images: merge(graphdef, arrays).backbone(images, stop=boundary)  # noqa: E731
        return jax.eval_shape(run, arrays, images).shape[1:]

    assert shape("stem") == (112, 112, 32)
    assert shape("blocks.2") == (56, 56, 24)
    assert shape("blocks.4") == (28, 28, 40)
    assert shape("blocks.5") == shape("blocks.7") == (14, 14, 80)
    assert shape("blocks.8") == shape("blocks.10") == (14, 14, 112)
    assert shape("blocks.15") == (7, 7, 320)
    assert shape("top") == (7, 7, 1280)
    assert shape("pre_logits") == (1280,)


@pytest.mark.parametrize("drop_path", [0.0, 0.2])
def test_residual_where_shapes_agree_and_deeper_blocks_drop_more(drop_path):
    backbone = create_model("efficientnet_lite0", 2, drop_path=drop_path, abstract_backbone=True).backbone
    blocks = [getattr(backbone, name) for name in backbone.block_names[1:-2]]
    residual = [index for index, block in enumerate(blocks) if block.residual]
    assert residual == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    np.testing.assert_allclose([block.drop_path.rate for block in blocks], drop_path * np.arange(16) / 16)


@pytest.mark.extended
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_real_weights_classify_photographs(photographs, name):
    spec = find_spec(name)
    model = create_model(name, 1000, abstract_backbone=True)
    load_pretrained(model, spec, head=True)
    model.eval()
    graphdef, params, stats = split(model)
    forward = jax.jit(lambda arrays, pixels: merge(graphdef, arrays)(pixels))
    pictures = photographs(spec.preprocessing.image_size)
    pixels = spec.preprocessing.normalize(jnp.asarray([*pictures.values()]))
    best = dict(zip(pictures, np.asarray(forward({**params, **stats}, pixels)).argmax(-1), strict=True))
    assert best["chelsea"] in CATS
    assert best["coffee"] == ESPRESSO


@pytest.mark.extended
@pytest.mark.parametrize("size", [224, 192])
def test_logits_match_pytorch(photographs, lite0_logits, size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        peer = pytest.importorskip("efficientnet_lite_pytorch")
    model = peer.EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    spec = find_spec("efficientnet_lite0")
    model.load_state_dict(torch.load(spec.path(), weights_only=True))
    images = np.stack([*photographs(size).values()])
    pixels = np.asarray(spec.preprocessing.normalize(jnp.asarray(images))).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels.copy())).numpy()
    found = lite0_logits(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    np.testing.assert_array_equal(np.argsort(-found)[:, :5], np.argsort(-expected)[:, :5])
