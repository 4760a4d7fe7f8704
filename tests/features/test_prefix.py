import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transfer_jax.features import (
    FeatureCacheDir,
    FeatureKey,
    Layout,
    RowFormat,
    make_prefix,
    prefix_arrays,
    write_shards,
)
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.paths import block_of
from transfer_jax.training.forward import Forward
from transfer_jax.training.phase_step import make_eval_step
from transfer_jax.weights import find_spec


@pytest.mark.parametrize(
    ("boundary", "blocks"),
    [
        ("stem", {"stem"}),
        ("blocks.1", {"stem", "blocks.1"}),
        ("pre_logits", {"stem", "blocks.1", "blocks.11", "top"}),
    ],
)
def test_prefix_arrays_are_those_up_to_the_boundary(make_toy, boundary, blocks):
    model = make_toy()
    _, params, stats = split(model)
    arrays = {**params, **stats}
    found = prefix_arrays(arrays, boundary, model.backbone.block_names)
    assert set(found) == {path for path in arrays if block_of(path) in blocks}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_features_depend_on_the_prefix_arrays_only(make_toy, dtype):
    model = make_toy()
    graphdef, params, stats = split(model)
    arrays, names = {**params, **stats}, model.backbone.block_names
    below = prefix_arrays(arrays, "blocks.1", names)
    altered = {path: array if path in below else array + 1 for path, array in arrays.items()}
    prefix = jax.jit(make_prefix(graphdef, "blocks.1", find_spec("efficientnet_lite0").preprocessing, dtype))
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    features = prefix(arrays, {"image": images})
    assert features.shape == (2, 8, 8, 8)
    assert features.dtype == dtype
    np.testing.assert_array_equal(features, prefix(altered, {"image": images}))
    for path in below:
        changed = prefix({**arrays, path: arrays[path] + 1}, {"image": images})
        assert not np.array_equal(features, changed), path


@pytest.mark.parametrize("batch", [1, 3, 4, 6])
def test_cpu_slices_give_the_features_of_the_whole_batch(make_toy, batch):
    model = make_toy()
    graphdef, params, stats = split(model)
    arrays, preprocessing = {**params, **stats}, find_spec("efficientnet_lite0").preprocessing
    images = np.random.default_rng(0).integers(0, 256, (batch, 16, 16, 3), np.uint8)
    prefix = jax.jit(make_prefix(graphdef, "blocks.1", preprocessing, jnp.float32))
    whole = jax.jit(lambda images: model.backbone(preprocessing.normalize(images), stop="blocks.1"))
    np.testing.assert_allclose(prefix(arrays, {"image": images}), whole(images), rtol=1e-6, atol=1e-6)
    loops = {
        platform: "while"
        in prefix.trace(arrays, {"image": images}).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu")
    }
    assert loops == {"cpu": True, "tpu": False}


@pytest.mark.parametrize("boundary", ["pre_logits", "blocks.9"])
def test_cached_features_and_images_give_the_same_logits(lite0, photographs, tmp_path, boundary):
    graphdef, arrays = lite0
    preprocessing = find_spec("efficientnet_lite0").preprocessing
    images = np.stack([*photographs(96).values()])
    prefix = jax.jit(make_prefix(graphdef, boundary, preprocessing, jnp.float32))
    key = FeatureKey(weights="", boundary=boundary, preprocessing={}, dtype="float32", dataset="")
    shape = jax.eval_shape(prefix, arrays, {"image": images}).shape[1:]
    layout = Layout(rows=4, batch_size=2, row_format=RowFormat.single(shape, "float32"))

    def batches(pieces):
        starts = [i for a, b in pieces for i in range(a, b, 2)]
        return ({"features": np.asarray(prefix(arrays, {"image": images[i : i + 2]}))} for i in starts)

    cache = write_shards(key, layout, batches, np.zeros(4, np.int32), FeatureCacheDir(tmp_path)).cache
    logits = [
        jax.jit(make_eval_step(Forward(graphdef=graphdef, start=start, preprocessing=preprocessing)))(
            arrays, batch
        )
        for start, batch in ((None, {"image": images}), (boundary, cache.gather(np.arange(4))))
    ]
    assert np.ptp(logits[0]) > 5
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-5, atol=1e-5)
