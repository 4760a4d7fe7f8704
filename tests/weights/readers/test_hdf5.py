"""Files that lead elsewhere, lie about sizes or are damaged, made with h5py."""

import random
import resource
import sys

import numpy as np
import pytest

from transfer_jax.weights.readers import CheckpointError, hdf5, hdf5_process, read_weights

h5py = pytest.importorskip("h5py", reason="h5py is not installed")

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def craft_h5(tmp_path):
    """Makes a `.h5` of one layer `dense`, whose group a function fills, and returns its path."""

    def craft(fill, name="weights.h5", names=("dense/kernel",)):
        path = tmp_path / name
        with h5py.File(path, "w", libver=("earliest", "v110")) as file:
            file.attrs["layer_names"] = ["dense"]
            group = file.create_group("dense")
            group.attrs["weight_names"] = list(names)
            fill(group.create_group("dense"))
        return path

    return craft


def test_plain(craft_h5):
    weights = read_weights(craft_h5(lambda group: group.create_dataset("kernel", data=VALUES)))
    assert weights.infos == {"dense/kernel": ((2, 3), "float32")}
    np.testing.assert_array_equal(weights["dense/kernel"], VALUES)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3, dtype=">f4"),
        np.arange(3, dtype=np.float16),
        np.arange(3, dtype=">i8"),
        np.array([True, False]),
        np.array(3.5),
        np.zeros((0, 4), np.float32),
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_types(array, craft_h5):
    found = read_weights(craft_h5(lambda group: group.create_dataset("kernel", data=array)))["dense/kernel"]
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, array)


def _other(group):
    path = f"{group.file.filename}.other"
    with h5py.File(path, "w") as file:
        file["kernel"] = VALUES
    return path


def _external_link(group):
    group["kernel"] = h5py.ExternalLink(_other(group), "kernel")


def _soft_link(group):
    group.file["elsewhere"] = VALUES
    group["kernel"] = h5py.SoftLink("/elsewhere")


def _external_storage(group):
    with open(f"{group.file.filename}.raw", "wb") as file:
        file.write(VALUES.tobytes())
    group.create_dataset("kernel", VALUES.shape, "f4", external=f"{group.file.filename}.raw")


def _virtual(group):
    layout = h5py.VirtualLayout(VALUES.shape, "f4")
    layout[:] = h5py.VirtualSource(_other(group), "kernel", VALUES.shape, dtype="f4")
    group.create_virtual_dataset("kernel", layout)


def _bomb(group):
    group.create_dataset("kernel", data=np.zeros(10**7, np.float32), compression="gzip", chunks=(10**6,))


def _references(group):
    group.create_dataset("kernel", data=np.array([group.ref], h5py.ref_dtype))


def _strings(group):
    group.create_dataset("kernel", data=["a", "b"])


def _fields(group):
    group.create_dataset("kernel", data=np.zeros(2, [("a", "f4"), ("b", "f4")]))


def _subgroup(group):
    group.create_group("kernel")


def _datatype(group):
    group["kernel"] = np.dtype("f4")


def _unwritten(group):
    group.create_dataset("kernel", (10**6, 10**6), "f4")


def _unwritten_chunks(group):
    group.create_dataset("kernel", (10**6, 10**6), "f4", chunks=(1, 100))


def _half_written(group):
    group.create_dataset("kernel", (100, 100), "f4", chunks=(1, 100))[3] = 1


def _nothing(group):
    del group


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (_external_link, "refused: 'kernel' is a soft or external link"),
        (_soft_link, "refused: 'kernel' is a soft or external link"),
        (_external_storage, "refused: the array 'dense/kernel' is stored in another file"),
        (_virtual, "refused: the array 'dense/kernel' is assembled from other"),
        (_bomb, "refused: the array 'dense/kernel' is compressed"),
        (_references, "'dense/kernel' has the unsupported type object"),
        (_strings, "'dense/kernel' has the unsupported type object"),
        (_fields, "'dense/kernel' has the unsupported type"),
        (_subgroup, "the layer 'dense' has no array 'dense/kernel'"),
        (_datatype, "'kernel' is neither a group nor an array"),
        (_unwritten, "'dense/kernel' takes 4000000000000 bytes, more than are in the file"),
        (_unwritten_chunks, "'dense/kernel' takes 4000000000000 bytes, more than are in the file"),
        (_half_written, "'dense/kernel' takes 40000 bytes, more than are in the file"),
        (_nothing, "the layer 'dense' has no array 'dense/kernel'"),
    ],
)
def test_refusals(fill, message, craft_h5):
    with pytest.raises(CheckpointError, match=rf"weights\.h5: .*{message}") as caught:
        read_weights(craft_h5(fill))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "/dense/kernel", "..", "", "dense//kernel", "./dense"])
def test_names_cannot_lead_elsewhere(name, craft_h5):
    with pytest.raises(CheckpointError, match=r"has no array|does not contain it"):
        read_weights(craft_h5(lambda group: group.create_dataset("kernel", data=VALUES), names=(name,)))


def test_two_arrays_of_one_name(craft_h5):
    names = ("dense/kernel", "a/dense/kernel")

    def fill(group):
        group["kernel"] = VALUES
        group.parent["a/dense/kernel"] = VALUES

    with pytest.raises(CheckpointError, match="two arrays have the name 'dense/kernel'"):
        read_weights(craft_h5(fill, names=names))


@pytest.mark.parametrize("where", ["layers", "layers/dense"])
def test_groups_that_contain_themselves(where, tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = VALUES
        file["layers/dense/again"] = file[where]
    with pytest.raises(CheckpointError, match="a group is in two places, or in itself"):
        read_weights(path)


def test_groups_without_end(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["/".join(["layers", *["a"] * 2000, "vars", "0"])] = VALUES
    with pytest.raises(CheckpointError, match="layers are nested more than 32 deep"):
        read_weights(path)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        (np.arange(3), "'layer_names' is of type int64, expected a list of names"),
        (np.array(["a", b"\xff"], dtype="S1"), "damaged or truncated HDF5 file at 'layer_names'"),
        (["dense", "other"], "lists the layer 'other'"),
    ],
)
def test_attributes_are_checked(attribute, message, craft_h5):
    def fill(group):
        group.file.attrs["layer_names"] = attribute
        group["kernel"] = VALUES

    with pytest.raises(CheckpointError, match=message):
        read_weights(craft_h5(fill))


def test_an_attribute_lies_about_its_size(craft_h5):
    def fill(group):
        group.file.attrs["layer_names"] = np.full(1234, b"a", "S1")

    path = craft_h5(fill)
    raw, size = path.read_bytes(), (1234).to_bytes(8, "little")
    assert size in raw
    path.write_bytes(raw.replace(size, (10**12).to_bytes(8, "little")))
    with pytest.raises(CheckpointError, match=r"'layer_names' is larger than the file|damaged"):
        read_weights(path)


def test_truncation(craft_h5):
    path = craft_h5(lambda group: group.create_dataset("kernel", data=VALUES))
    raw = path.read_bytes()
    for length in range(8, len(raw) - 8, 97):
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError, match=r"weights\.h5: "):
            read_weights(path)


def test_mutations_allocate_nothing_large(craft_h5):
    """Bytes of what describes the file are changed; it is read or refused, in the memory that it needs."""
    path = craft_h5(lambda group: group.create_dataset("kernel", data=VALUES))
    raw, draw = path.read_bytes(), random.Random(0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = refused = 0
    for _ in range(400):
        changed = bytearray(raw)
        for _ in range(draw.choice((1, 1, 3))):
            changed[draw.randrange(len(raw))] = draw.randrange(256)
        path.write_bytes(bytes(changed))
        try:
            assert all(array.nbytes <= len(raw) for array in read_weights(path).values())
            read += 1
        except CheckpointError:
            refused += 1
    assert min(read, refused) > 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_missing_h5py_is_named_with_its_command(craft_h5, monkeypatch):
    path = craft_h5(lambda group: group.create_dataset("kernel", data=VALUES))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'transfer_jax\[keras\]'"):
        read_weights(path)


def test_a_heap_of_strings_without_an_end_is_refused(craft_h5):
    path = craft_h5(lambda group: group.create_dataset("kernel", data=VALUES))
    raw = bytearray(path.read_bytes())
    heap = raw.index(b"GCOL")
    number, at = 1, heap + 16
    while number:  # up to the free space
        number, size = (
            int.from_bytes(raw[at : at + 2], "little"),
            int.from_bytes(raw[at + 8 : at + 16], "little"),
        )
        at += 16 + -(-size // 8) * 8 if number else 0
    raw[at + 8 : at + 16] = bytes(8)  # which now has no size: HDF5 itself reads it over and over
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="a heap of strings has no end"):
        read_weights(path)


@pytest.fixture
def endless(craft_h5):
    """A file whose list of free blocks leads back to its first block, so that the HDF5 library loops."""
    path = craft_h5(lambda group: group.create_dataset("kernel", data=VALUES))
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"HEAP")
    free, address = (int.from_bytes(raw[at + skip : at + skip + 8], "little") for skip in (16, 24))
    raw[address + free : address + free + 8] = free.to_bytes(8, "little")
    path.write_bytes(raw)
    return path


def test_a_list_of_free_blocks_without_an_end_is_refused(endless):
    with pytest.raises(CheckpointError, match="the free blocks of a heap have no end"):
        read_weights(endless)


@pytest.mark.extended
def test_a_file_that_the_library_reads_over_and_over_is_refused_in_time(endless, craft_h5, monkeypatch):
    monkeypatch.setattr(hdf5, "_check_heaps", lambda data: None)
    monkeypatch.setattr(hdf5_process, "SECONDS", 2)
    with pytest.raises(CheckpointError, match="its structure was not read in 2 seconds"):
        read_weights(endless)
    monkeypatch.undo()
    sound = craft_h5(lambda group: group.create_dataset("kernel", data=VALUES))
    np.testing.assert_array_equal(read_weights(sound)["dense/kernel"], VALUES)


@pytest.mark.extended
def test_a_crash_of_the_library_is_an_error_of_the_file(craft_h5):
    path = craft_h5(lambda group: group.create_dataset("kernel", data=VALUES))
    read_weights(path)
    hdf5_process._running[0]._process.kill()
    with pytest.raises(CheckpointError, match="the HDF5 library crashes on it"):
        read_weights(path)
    assert read_weights(path)


def test_arrays_in_the_names_of_pytorch_are_read_by_their_paths(tmp_path):
    path = tmp_path / "torch.h5"
    with h5py.File(path, "w") as file:
        file["layer1.0.conv1.weight"] = VALUES
        file["head/fc.bias"] = VALUES[0]
    weights = read_weights(path)
    assert list(weights) == ["head/fc.bias", "layer1.0.conv1.weight"]
    np.testing.assert_array_equal(weights["layer1.0.conv1.weight"], VALUES)


@pytest.mark.parametrize("options", [{"chunks": (1, 3)}, {"dtype": "f2"}, {"dtype": ">f8"}], ids=str)
def test_arrays_in_chunks_and_of_other_types(options, craft_h5):
    path = craft_h5(lambda group: group.create_dataset("kernel", data=VALUES, **options))
    np.testing.assert_array_equal(read_weights(path)["dense/kernel"], VALUES)
