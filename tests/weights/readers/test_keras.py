"""Files as Keras writes them, and as older ones did."""

import io
import json
import zipfile

import numpy as np
import pytest
from originals.keras_api import import_keras

from transfer_jax.weights.readers import CheckpointError, read_weights

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

KERNEL, BIAS = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A compiled classifier with a network inside, its three files, and its arrays by key."""
    pytest.importorskip("keras", reason="keras is not installed")
    keras = import_keras()
    keras.utils.clear_session()  # layers without a name of their own are numbered from 0
    layers, folder = keras.layers, tmp_path_factory.mktemp("keras")
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="block1_conv1"),
            layers.Conv2D(4, 3, name="block1_conv2"),
            layers.BatchNormalization(name="bn"),
            layers.BatchNormalization(name="bn_unscaled", scale=False),
            layers.DepthwiseConv2D(3, name="depthwise", use_bias=False),
        ],
        name="network",
    )
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Normalization(),
            inner,
            layers.SeparableConv2D(2, 1, name="separable"),
            layers.LayerNormalization(name="ln"),
            layers.Dropout(0.1),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, name="predictions", dtype="bfloat16"),
        ]
    )
    model.compile("adam", "mse")
    paths = {suffix: folder / f"model{suffix}" for suffix in (".keras", ".h5", ".weights.h5")}
    model.save(paths[".keras"])
    model.save(paths[".h5"])
    model.save_weights(paths[".weights.h5"])
    arrays = {
        f"{'network/' if layer in inner.layers else ''}{layer.name}/{weight.name}": np.asarray(weight.value)
        for layer in [*model.layers, *inner.layers]
        if layer is not inner
        for weight in layer.weights
    }
    return paths, arrays


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_every_format_has_the_same_keys_and_values(suffix, saved):
    paths, arrays = saved
    weights = read_weights(paths[suffix])
    assert set(weights) == set(arrays)
    assert "network/depthwise/kernel" in weights
    for key, expected in arrays.items():
        assert weights[key].dtype == expected.dtype
        assert weights.infos[key] == (expected.shape, expected.dtype.name)
        assert not weights[key].flags.writeable
        np.testing.assert_array_equal(weights[key], expected)


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_a_network_inside_is_an_entry(suffix, saved):
    paths, arrays = saved
    weights = read_weights(paths[suffix], entry="network")
    assert set(weights) == {key.removeprefix("network/") for key in arrays if key.startswith("network/")}
    with pytest.raises(CheckpointError, match=r"no layer 'vgg16'; layers with nested layers: network$"):
        read_weights(paths[suffix], entry="vgg16")


@pytest.mark.parametrize(
    ("layer", "names", "keys"),
    [
        ("conv1", ["conv1_W_1:0", "conv1_b_1:0"], ["conv1/kernel", "conv1/bias"]),
        ("bn1", ["bn1_gamma:0", "bn1_running_mean:0"], ["bn1/gamma", "bn1/moving_mean"]),
        ("conv1/conv", ["conv1/conv/kernel:0"], ["conv1_conv/kernel"]),
        ("conv1", ["conv1_3/kernel:0"], ["conv1/kernel"]),
        ("conv1", ["scope/conv1/kernel"], ["conv1/kernel"]),
        ("dw", ["dw/depthwise_kernel:0"], ["dw/kernel"]),
        (
            "sep",
            ["sep/depthwise_kernel:0", "sep/pointwise_kernel:0"],
            ["sep/depthwise_kernel", "sep/pointwise_kernel"],
        ),
        ("vgg16", ["block1_conv1/kernel"], ["vgg16/block1_conv1/kernel"]),
        ("b_layer_scale", ["b_layer_scale/Variable:0"], ["b_layer_scale/gamma"]),
    ],
)
@pytest.mark.parametrize("root", ["", "model_weights"])
def test_names_of_older_files(root, layer, names, keys, tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        group = file.require_group(root) if root else file
        group.attrs["layer_names0"] = np.array([layer.encode()])  # many names are in several attributes
        group.attrs["layer_names1"] = np.array([b"dropout"])
        group.create_group("dropout").attrs["weight_names"] = np.zeros(0)
        inside = group.create_group(layer)
        inside.attrs["weight_names"] = np.array([name.encode() for name in names])
        for name in names:
            inside[name] = KERNEL
    assert list(read_weights(path)) == keys


def numbered(names: bool) -> bytes:
    """A `.weights.h5` as Keras 3 writes it, since 3.6 with the names of layers."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for own, name in (("conv2d", "first"), ("conv2d_1", "second"), ("custom", "mine")):
            variables = file.create_group(f"layers/{own}/vars")
            variables["0"], variables["1"] = KERNEL, BIAS
            if names:
                variables.attrs["name"] = name
        file["optimizer/vars/0"] = KERNEL
    return buffer.getvalue()


def description() -> bytes:
    layers = [
        {"class_name": kind, "config": {"name": name}}
        for kind, name in (("InputLayer", "i"), ("Conv2D", "first"), ("Conv2D", "second"), ("Custom", "mine"))
    ]
    return json.dumps({"class_name": "Functional", "config": {"layers": layers}}).encode()


def test_layers_without_a_name_of_their_own_are_counted_in_the_file(write):
    buffer = io.BytesIO()
    layers = ("conv2d_9", "conv2d_10", "batch_normalization_9", "conv2d_101", "conv2d_of_mine_7", "conv2d_09")
    with h5py.File(buffer, "w") as file:
        file.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
        for layer in layers:
            file.create_group(layer).attrs["weight_names"] = np.array([f"{layer}/kernel".encode()])
            file[layer][f"{layer}/kernel"] = KERNEL
    counted = ("conv2d", "conv2d_1", "batch_normalization", "conv2d_2", "conv2d_of_mine_7", "conv2d_09")
    assert list(read_weights(write(buffer.getvalue()))) == [f"{layer}/kernel" for layer in counted]


NAMED = ["first/kernel", "first/bias", "second/kernel", "second/bias", "mine/0", "mine/1"]


def test_names_beside_the_arrays(write):
    assert list(read_weights(write(numbered(True)))) == NAMED


def test_without_names_layers_are_numbered_by_class(write):
    keys = ["conv2d/kernel", "conv2d/bias", "conv2d_1/kernel", "conv2d_1/bias", "custom/0", "custom/1"]
    assert list(read_weights(write(numbered(False)))) == keys


@pytest.mark.parametrize("names", [False, True])
def test_names_from_the_description(names, craft, write):
    members = {"metadata.json": b"{}", "config.json": description(), "model.weights.h5": numbered(names)}
    weights = read_weights(write(craft.zip_members(members)))
    assert list(weights) == NAMED
    np.testing.assert_array_equal(weights["second/kernel"], KERNEL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.weights.h5": None}, r"has no member 'model\.weights\.h5'"),
        ({"config.json": None}, r"has no member 'config\.json'"),
        ({"config.json": b"{"}, "config.json is invalid"),
        ({"config.json": b"[" * 10**6}, "config.json is invalid"),
        ({"model.weights.h5": b"PK"}, "damaged or truncated HDF5 file"),
        ({"../x": b""}, r"member with the path '\.\./x'"),
    ],
)
def test_archives_are_checked(change, message, craft, write):
    members = {"metadata.json": b"{}", "config.json": description(), "model.weights.h5": numbered(True)}
    members = {name: raw for name, raw in (members | change).items() if raw is not None}
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(write(craft.zip_members(members)))
    assert "\n" not in str(caught.value)


def test_compressed_archives_are_refused(craft, write):
    members = {"metadata.json": b"{}", "config.json": description(), "model.weights.h5": numbered(True)}
    raw = craft.zip_members(members, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="is compressed, which neither PyTorch nor Keras does"):
        read_weights(write(raw))


def test_code_in_a_description_is_only_text(craft, write):
    model = json.loads(description())
    model["config"]["layers"].append({"class_name": "Lambda", "config": {"name": "f", "function": "exit()"}})
    members = {"config.json": json.dumps(model).encode(), "model.weights.h5": numbered(False)}
    assert list(read_weights(write(craft.zip_members(members)))) == NAMED


def test_a_model_without_weights(write):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_group("layers")
    with pytest.raises(CheckpointError, match="holds no weights of a Keras model"):
        read_weights(write(buffer.getvalue()))


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_member_that_does_not_match_its_checksum_is_refused(name, craft, write):
    members = {"metadata.json": b"{}", "config.json": description(), "model.weights.h5": numbered(True)}
    raw = bytearray(craft.zip_members(members))
    raw[raw.index(members[name]) + len(members[name]) - 3] ^= 1
    with pytest.raises(CheckpointError, match=f"'{name}' does not match its checksum"):
        read_weights(write(bytes(raw)))
