import pytest

from transfer_jax.models import create_model
from transfer_jax.models.functional import split
from transfer_jax.weights import find_spec
from transfer_jax.weights.keymaps import torch_key
from transfer_jax.weights.readers import read_weights

LITE0 = "efficientnet_lite0"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("backbone/stem/conv/kernel", "_conv_stem.weight"),
        ("backbone/stem/norm/scale", "_bn0.weight"),
        ("backbone/blocks.11/expand/conv/kernel", "_blocks.11._expand_conv.weight"),
        ("backbone/blocks.11/expand/norm/bias", "_blocks.11._bn0.bias"),
        ("backbone/blocks.1/depthwise/norm/mean", "_blocks.1._bn1.running_mean"),
        ("backbone/blocks.0/project/norm/var", "_blocks.0._bn2.running_var"),
        ("backbone/top/conv/kernel", "_conv_head.weight"),
        ("backbone/top/norm/mean", "_bn1.running_mean"),
        ("head/classifier/kernel", "_fc.weight"),
        ("head/classifier/bias", "_fc.bias"),
        ("head/hidden/0/kernel", None),
    ],
)
def test_keys(path, key):
    assert torch_key(LITE0, path) == key


def test_paths_and_keys_correspond_one_to_one():
    _, params, stats = split(create_model(LITE0, 1000, abstract_backbone=True))
    keys = [str(torch_key(LITE0, path)) for path in (*params, *stats)]
    file = read_weights(find_spec(LITE0).path())
    assert sorted(keys) == sorted(key for key in file if not key.endswith("num_batches_tracked"))
