import io
import zipfile

import numpy as np
import pytest

from transfer_jax.weights.readers import CheckpointError, read_weights

VALUES = np.array([1.5, -2.0, 0.25], np.float32)


@pytest.fixture
def members(craft):
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 3), (3,), (1,))})
    return {
        "archive/data.pkl": craft.pickled(body),
        "archive/data/0": VALUES.tobytes(),
        "archive/version": b"3\n",
    }


@pytest.mark.parametrize(("order", "dtype"), [(None, "<f4"), (b"little", "<f4"), (b"big", ">f4")])
def test_byte_order(order, dtype, craft, write):
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 3), (3,), (1,))})
    array = read_weights(write(craft.zip_file(body, {"0": VALUES.astype(dtype).tobytes()}, order)))["w"]
    np.testing.assert_array_equal(array, VALUES)
    assert array.dtype.isnative


def test_big_endian_bfloat16(craft, write):
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 2, "BFloat16Storage"), (2,), (1,))})
    array = read_weights(write(craft.zip_file(body, {"0": b"\x3f\x80\xc0\x00"}, b"big")))["w"]
    assert array.astype(np.float32).tolist() == [1.0, -2.0]


@pytest.mark.parametrize("prefix", ["resnet18", "a b", "é", "x" * 200])
def test_any_prefix(prefix, members, craft, write):
    renamed = {name.replace("archive", prefix): raw for name, raw in members.items()}
    np.testing.assert_array_equal(read_weights(write(craft.zip_members(renamed)))["w"], VALUES)


def test_aligned_storages_are_not_copied(craft, write):
    """PyTorch aligns storages to 64 bytes; here the byte order's member is sized to the same end."""
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 3), (3,), (1,))})
    bases = set()
    for padding in range(4):
        members = {"archive/data.pkl": craft.pickled(body), "archive/x": b"." * padding}
        array = read_weights(write(craft.zip_members(members | {"archive/data/0": VALUES.tobytes()})))["w"]
        np.testing.assert_array_equal(array, VALUES)
        assert array.flags.aligned
        bases.add(array.base is not None)
    assert bases == {True, False}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archive/data.pkl": None}, "0 members NAME/data.pkl"),
        ({"other/data.pkl": b"x"}, "2 members NAME/data.pkl"),
        ({"archive/data/0": None}, "no member for storage '0'"),
        ({"archive/data/0": b"12345678"}, "storage '0' has 8 bytes in the file and 12 in the pickle"),
        ({"archive/byteorder": b"middle"}, "unknown byte order b'middle'"),
        ({"../data/0": b"x"}, r"member with the path '\.\./data/0'"),
        ({"archive/data/../../x": b"x"}, "member with the path"),
        ({"/etc/passwd": b"x"}, "member with the path '/etc/passwd'"),
        ({"archive\\x": b"x"}, "member with the path"),
    ],
)
def test_layout_is_checked(change, message, members, craft, write):
    members = {name: raw for name, raw in (members | change).items() if raw is not None}
    with pytest.raises(CheckpointError, match=message):
        read_weights(write(craft.zip_members(members)))


def test_storage_key_cannot_leave_its_folder(craft, write):
    body = craft.mapping({"w": craft.tensor(craft.storage("../data.pkl", 3), (3,), (1,))})
    with pytest.raises(CheckpointError, match="no member for storage"):
        read_weights(write(craft.zip_file(body, {})))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members(members, write, tmp_path):
    path = tmp_path / "twice.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name in (*members, "archive/data/0"):
            archive.writestr(name, members[name])
    with pytest.raises(CheckpointError, match="two members 'archive/data/0'"):
        read_weights(path)


@pytest.mark.parametrize("bomb", ["archive/data.pkl", "archive/data/0"])
def test_compressed_members_are_refused(bomb, members, tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name, raw in members.items():
            kind = zipfile.ZIP_DEFLATED if name == bomb else zipfile.ZIP_STORED
            archive.writestr(name, raw + bytes(50_000_000) * (name == bomb), kind)
    assert path.stat().st_size < 60_000
    with pytest.raises(CheckpointError, match=f"{bomb}' is compressed"):
        read_weights(path)


def test_local_header_must_agree(members, craft, write):
    raw = craft.zip_members(members)
    local = raw.index(b"archive/data/0")
    with pytest.raises(CheckpointError, match="does not match its local header"):
        read_weights(write(raw[:local] + b"archive/data/1" + raw[local + 14 :]))


def test_encrypted(members, craft, write):
    raw = bytearray(craft.zip_members(members))
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 8] |= 1
    with pytest.raises(CheckpointError, match="encrypted"):
        read_weights(write(bytes(raw)))


def test_member_outside_the_file(members, craft, write):
    """The last member's size in both directories is pushed past the end."""
    order = ["archive/version", "archive/data.pkl", "archive/data/0"]
    raw = bytearray(craft.zip_members({name: members[name] for name in order}))
    entry = raw.rindex(b"PK\x01\x02")
    raw[entry + 20 : entry + 28] = (10**6).to_bytes(4, "little") * 2
    with pytest.raises(CheckpointError, match="truncated: the zip member 'archive/data/0' ends outside"):
        read_weights(write(bytes(raw)))


@pytest.mark.parametrize("name", ["archive/data.pkl", "archive/data/0", "archive/byteorder"])
def test_a_member_that_does_not_match_its_checksum_is_refused(name, members, craft, write):
    members = {"archive/byteorder": b"little", **members}
    whole = craft.zip_members(members)
    raw = bytearray(whole)
    at = raw.index(members[name], raw.index(name.encode()))
    raw[at + len(members[name]) // 2] ^= 1
    with pytest.raises(CheckpointError, match=rf"weights\.pth: .*'{name}' does not match its checksum"):
        read_weights(write(bytes(raw)))["w"]
    assert read_weights(write(whole))["w"].tolist() == VALUES.tolist()


def test_a_checksum_of_zero_is_not_compared(members, craft, write):
    """PyTorch writes zeros after `set_crc32_options(False)`."""
    raw = bytearray(craft.zip_members(members))
    for info in zipfile.ZipFile(io.BytesIO(bytes(raw))).infolist():
        while (at := raw.find(info.CRC.to_bytes(4, "little"))) >= 0:
            raw[at : at + 4] = bytes(4)
    assert read_weights(write(bytes(raw)))["w"].tolist() == VALUES.tolist()


@pytest.mark.parametrize(
    "member", ["archive_format", "data/weights/weight_0", "serialized_exported_program.json"]
)
def test_programs_are_refused_with_advice(member, craft, write):
    raw = craft.zip_members({f"model/{member}": b"pt2", "model/version": b"1"})
    with pytest.raises(CheckpointError, match=r"a program of torch\.export .*save the weights instead"):
        read_weights(write(raw, "model.pt2"))


def test_entries_that_are_hidden_by_a_damaged_length_are_missed(members, craft, write):
    raw = bytearray(craft.zip_members({**members, "archive/byteorder": b"big"}))
    last = raw.rindex(b"PK\x01\x02")
    before = raw.rindex(b"PK\x01\x02", 0, last)
    raw[before + 32 : before + 34] = (raw.rindex(b"PK\x05\x06") - last).to_bytes(2, "little")
    with pytest.raises(CheckpointError, match="has 3 entries, expected 4"):
        read_weights(write(bytes(raw)))
