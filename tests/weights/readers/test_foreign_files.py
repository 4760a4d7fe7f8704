import gzip
import io
import tarfile

import pytest

from transfer_jax.weights.readers import CheckpointError, read_weights


def tar() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("tensors"))
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        (
            "model.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4",
            "a Git LFS pointer",
        ),
        ("resnet50.pth", b"\n<!DOCTYPE html><html>", "a web page.*download the file again"),
        ("resnet50.pth", b"\xef\xbb\xbf<?xml version='1.0'?><Error>", "a web page"),
        ("resnet50.pth", b"Entry not found", "an error message of a server"),
        ("resnet50.pth.gz", gzip.compress(b"x", mtime=0), "compressed by gzip; unpack it"),
        ("resnet50.pth.tar", tar(), "a tar archive; unpack it"),
        ("resnet50.pth", bytes(1000), "not complete: it begins with zeros"),
        ("array.npy", b"\x93NUMPY\1\0" + b" " * 100, r"a single array; .*numpy\.savez"),
        ("net.onnx", b"\x08\x07\x12\x07pytorch", "an ONNX program"),
        ("model.ckpt.index", b"\0\0\0\1abc", "a part of a TensorFlow checkpoint"),
        ("flax_model.msgpack", b"\x82\xa1a", "a Flax msgpack file"),
        ("flax_model", b"\x82\xa6params\x81", "a Flax msgpack file"),
        (
            "__0_0.distcp",
            b"PK\3\4",
            "a part of a distributed checkpoint of PyTorch; convert its folder: python -m",
        ),
        ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", b"PK\3\4", "a part of a checkpoint of DeepSpeed"),
        ("model.gguf", b"GGUF\3\0", "a GGUF file"),
    ],
)
def test_files_that_are_no_weights_are_named(name, raw, message, write):
    path = write(raw, name)
    with pytest.raises(CheckpointError, match=rf"not a weight file\. The file is {message}") as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.onnx", "a.msgpack", "model.index"])
def test_a_weight_file_may_have_any_name(name, write, craft):
    body = craft.mapping({"w": craft.tensor(craft.storage("0", 1), (1,), (1,))})
    assert list(read_weights(write(craft.zip_file(body, {"0": bytes(4)}), name))) == ["w"]
