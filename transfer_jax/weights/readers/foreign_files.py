"""Descriptions of files that are no weight files of a supported format, but are often taken for one."""

import re

_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer instead of the file; run `git lfs pull` in its repository, or download the file",
    ),
    (b"<", "a web page, such as an error or a login page; download the file again"),
    (b"\x1f\x8b", "compressed by gzip; unpack it first"),
    (b"BZh", "compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ", "compressed by xz; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"GGUF", "a GGUF file, which is not supported; use the safetensors file of the model"),
    (b"\x93NUMPY", "a single array; save all arrays with numpy.savez"),
    (b"\0" * 16, "not complete: it begins with zeros; download it again"),
    (b"Entry not found", "an error message of a server; check the address and download it again"),
    (b"Not Found", "an error message of a server; check the address and download it again"),
    (b"Invalid username", "an error message of a server; check the address and download it again"),
)
_ENDINGS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((".onnx",), "an ONNX program; use the weights of the network in another format"),
    ((".tflite",), "a TensorFlow Lite program; use the weights of the network in another format"),
    (
        (".pb", ".index", ".meta", ".data-00000-of-00001"),
        "a part of a TensorFlow checkpoint; load it there, and save the weights as .h5",
    ),
    (
        (".msgpack",),
        "a Flax msgpack file; load it in Flax, and save the parameters with numpy.savez or Orbax",
    ),
)
_PARTS: tuple[tuple[str, str], ...] = (
    (
        ".distcp",
        "a part of a distributed checkpoint of PyTorch; convert its folder: "
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth",
    ),
    (
        "_optim_states.pt",
        "a part of a checkpoint of DeepSpeed; convert its folder with the zero_to_fp32.py that is in it",
    ),
)
"""Endings of names of files that hold a part of the weights, in the form of a whole file."""
_MAP = re.compile(rb"[\x81-\x8f\xde\xdf].{0,4}[\xa1-\xbf][A-Za-z_]", re.DOTALL)
"""The beginning of a msgpack file: a map whose first key is a text."""
_TAR_AT, _TAR = 257, b"ustar"


def describe_part(name: str) -> str | None:
    """Returns the description of a file that is a part of a checkpoint, by its name; None for others."""
    return next((text for end, text in _PARTS if name.lower().endswith(end)), None)


def describe_foreign(name: str, head: bytes) -> str | None:
    """Returns what a file is, as the end of the sentence "The file is …", and what to do; None if unknown.

    Args:
        name: the name of the file.
        head: its first bytes.
    """
    for begin, text in _BEGINNINGS:
        if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(begin) or head.startswith(begin):
            return text
    if head[_TAR_AT:].startswith(_TAR):
        return "a tar archive; unpack it first, or save the weights again with a newer PyTorch"
    if part := describe_part(name):
        return part
    if _MAP.match(head):
        return dict(_ENDINGS)[(".msgpack",)]
    for ends, text in _ENDINGS:
        if name.lower().endswith(ends):
            return text
    return None
