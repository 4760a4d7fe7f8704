import struct

import numpy as np
import pytest

from transfer_jax.weights.readers import CheckpointError, read_weights


@pytest.fixture
def body(craft):
    return craft.mapping({"w": craft.tensor(craft.storage("0", 3), (3,), (1,))})


def test_storage_views_of_old_files(craft, write):
    """Before PyTorch 0.4 a storage could be a part of another one: (key, offset, size)."""
    view = craft.sequence(craft.text("1"), craft.integer(2), craft.integer(3))
    body = craft.mapping(
        {
            "part": craft.tensor(craft.storage("0", 6, view=view), (2,), (1,), offset=1),
            "whole": craft.tensor(craft.storage("0", 6, view=b"N"), (6,), (1,)),
        }
    )
    weights = read_weights(write(craft.legacy_file(body, {"0": np.arange(6, dtype=np.float32).tobytes()})))
    assert weights["part"].tolist() == [3, 4]
    assert weights["whole"].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("view", [(4, 3), (0, 7), (7, 0), (-1, 2), (0, -1)])
def test_storage_view_outside_its_root(view, craft, write):
    part = craft.sequence(craft.text("1"), *map(craft.integer, view))
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 6, view=part), (), ())})
    with pytest.raises(CheckpointError, match="a view of storage '0' exceeds it"):
        read_weights(write(craft.legacy_file(body, {"0": bytes(24)})))


def test_a_tensor_outside_its_storage_view(craft, write):
    part = craft.sequence(craft.text("1"), craft.integer(2), craft.integer(3))
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 6, view=part), (4,), (1,))})
    with pytest.raises(CheckpointError, match="ends at byte 16 of storage '0', which has 12"):
        read_weights(write(craft.legacy_file(body, {"0": bytes(24)})))


def test_python2_pickle(craft, write):
    """Python 2 writes byte strings and gives OrderedDict its items; PyTorch 0.1 pickled Parameters."""
    function = craft.name("torch._utils", "_rebuild_tensor")
    old = craft.call(function, craft.storage("0", 3), b"K\0", craft.sizes((3,)), craft.sizes((1,)))
    parameter = craft.name("torch.nn.parameter", "Parameter") + b")\x81" + b"(" + old + b"\x88Ntb"
    pairs = craft.listed(craft.listed(b"U\x08a.weight", parameter), craft.listed(b"T\x06\0\0\0a.bias", old))
    body = craft.call(craft.name("collections", "OrderedDict"), pairs)
    weights = read_weights(write(craft.legacy_file(body, {"0": np.arange(3, dtype=np.float32).tobytes()})))
    assert list(weights) == ["a.weight", "a.bias"]
    assert weights["a.weight"].tolist() == weights["a.bias"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [2, 4, -3, 2**62, -(2**63)])
def test_wrong_element_count(count, body, craft, write):
    raw = craft.legacy_file(body, {"0": bytes(12)})
    with pytest.raises(CheckpointError, match=r"storage '0' has .* bytes in the file and 12 in the pickle"):
        read_weights(write(raw[:-20] + struct.pack("<q", count) + raw[-12:]))


@pytest.mark.parametrize("keys", [[], ["1"], ["0", "0"], ["0", "1"]])
def test_wrong_keys(keys, body, craft, write):
    listed = craft.pickled(craft.listed(*map(craft.text, keys)))
    raw = craft.HEADER + craft.pickled(body) + listed + (struct.pack("<q", 3) + bytes(12)) * 2
    with pytest.raises(CheckpointError, match="the list of storages does not match the pickle"):
        read_weights(write(raw))


def test_keys_that_are_not_strings(body, craft, write):
    raw = craft.HEADER + craft.pickled(body) + craft.pickled(craft.listed(b"N"))
    with pytest.raises(CheckpointError, match="not a list of strings"):
        read_weights(write(raw))


def test_other_pickles(craft, write):
    with pytest.raises(CheckpointError, match="not of a PyTorch checkpoint"):
        read_weights(write(craft.pickled(craft.mapping({"w": craft.integer(1)}))))
    with pytest.raises(CheckpointError, match="protocol version 1001"):
        read_weights(write(craft.pickled(craft.integer(0x1950A86A20F9469CFC6C)) + craft.pickled(b"K\x01")))


def test_storage_outside_the_object(craft, write):
    """Only the object may refer to storages, not the pickles around it."""
    with pytest.raises(CheckpointError, match="reference to a storage outside"):
        read_weights(write(craft.pickled(craft.storage("0", 3))))
    keys = craft.pickled(craft.listed(craft.storage("0", 3)))
    with pytest.raises(CheckpointError, match="reference to a storage outside"):
        read_weights(write(craft.HEADER + craft.pickled(b"}") + keys))


@pytest.mark.parametrize(
    ("left", "message"), [(0, "is missing"), (7, "is missing"), (8, "ends at"), (19, "ends at")]
)
def test_cut_inside_a_storage(left, message, body, craft, write):
    raw = craft.legacy_file(body, {"0": bytes(12)})
    with pytest.raises(CheckpointError, match=f"truncated: storage '0' {message}"):
        read_weights(write(raw[: len(raw) - 20 + left]))
