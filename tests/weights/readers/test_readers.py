import numpy as np
import pytest
from safetensors.numpy import save

from transfer_jax.weights.readers import FORMATS, CheckpointError, SeveralStateDictsError, read_weights

ONE = np.array([1.5, 2.5], np.float32)


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "weights.h5", "weights"])
def test_format_is_recognized_by_content(name, write, craft, container):
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 2), (2,), (1,))})
    np.testing.assert_array_equal(read_weights(write(container(body, {"0": ONE.tobytes()}), name))["w"], ONE)
    np.testing.assert_array_equal(read_weights(write(save({"w": ONE}), name))["w"], ONE)


def test_safetensors_header_length_is_not_taken_for_a_pickle(write):
    """A header of 640 bytes begins with 80 02, like a pickle of protocol 2."""
    raws = [save({"w": ONE}, {"pad": "x" * (512 + padding)}) for padding in range(0, 256, 8)]
    assert b"\x80\x02" in {raw[:2] for raw in raws}
    for raw in raws:
        np.testing.assert_array_equal(read_weights(write(raw))["w"], ONE)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*nowhere\.pth"):
        read_weights(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path)


@pytest.mark.parametrize("format", [None, "torch", "safetensors"])
def test_empty_file(format, write):
    with pytest.raises(CheckpointError, match=r"weights\.pth: the file is empty"):
        read_weights(write(b""), format)


@pytest.mark.parametrize("raw", [b"\x80", b"P", b"\x08\x07\x12\x07pytorch"])
def test_unknown_file_names_the_known_formats(raw, write):
    with pytest.raises(
        CheckpointError, match=r"weights\.pth: not a weight file .*safetensors, .*torch"
    ) as caught:
        read_weights(write(raw))
    assert repr(raw[:16]) in str(caught.value)


def test_unknown_format(write):
    with pytest.raises(ValueError, match=r"unknown weight format 'caffe'; choose from safetensors, .*torch"):
        read_weights(write(b"x"), "caffe")


@pytest.mark.parametrize("format", FORMATS)
def test_wrong_format_is_refused(format, write):
    with pytest.raises(CheckpointError, match=r"weights\.pth: "):
        read_weights(write(b"\x93NUMPY" + b" " * 100), format)


def test_errors_are_value_errors():
    assert issubclass(CheckpointError, ValueError)
    assert issubclass(SeveralStateDictsError, CheckpointError)
