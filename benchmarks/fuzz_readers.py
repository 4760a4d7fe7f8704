"""Can a damaged or hostile weight file do harm?

    python benchmarks/fuzz_readers.py --files 100000 --out fuzz.json

Makes a small valid file of each format, changes it at random, and reads all of it in a child process with
limited memory and time, in which executing a program or opening a connection is an error. Each file must
either be read completely or be refused with a `CheckpointError` of one line. A file whose format has
checksums (`CHECKED`) must be read with the values of the valid file. Anything else is a finding: it is
counted, and the first files are kept in the folder `--keep`.
"""

import argparse
import collections
import datetime
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from contest import report

from transfer_jax.weights.readers import FORMATS, CheckpointError, hdf5_process, read_weights

MEMORY, SECONDS = 3 << 30, 10
"""Address space that the child may add to its initial one, in bytes, and seconds for each file."""
STRUCTURE_SECONDS = 5
"""The time limit of the process that reads the structure of HDF5 files, in seconds."""
BATCH = 500
CHECKED = "PK\x03\x04"
"""The beginning of zip files, which have checksums: `.npz`, `.keras` and PyTorch's files since 1.6."""
_HARMLESS = "read", "refused"
_FORBIDDEN = ("exec", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess", "socket", "shutil")
Files = dict[str, bytes]
"""The bytes of a weight file by path; a format without folders has a single path."""


def seeds() -> dict[str, list[Files]]:
    """Returns small valid files of each format that can be made here."""
    return {name: [*make()] for name, make in _MAKERS.items() if name in FORMATS}


def arrays() -> dict[str, np.ndarray]:
    """Returns the arrays of the files."""
    return {
        "stem/kernel": np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2),
        "stem/bias": np.linspace(0, 1, 2).astype(np.float16),
        "step": np.array(3),
        "mask": np.array([True, False, True]),
    }


def _safetensors() -> Iterator[Files]:
    from safetensors.numpy import save

    yield {"f": save(arrays())}
    yield {"f": save(arrays(), {"format": "pt"})}


def _index() -> Iterator[Files]:
    from safetensors.numpy import save

    found = arrays()
    first, second = {"stem/kernel": found["stem/kernel"]}, {"step": found["step"], "mask": found["mask"]}
    places = {**dict.fromkeys(first, "model-1.safetensors"), **dict.fromkeys(second, "model-2.safetensors")}
    index = json.dumps({"metadata": {"total_size": 131}, "weight_map": places}).encode()
    shards = {"model-1.safetensors": save(first), "model-2.safetensors": save(second)}
    yield {"model.safetensors.index.json": index, **shards}


def _npz() -> Iterator[Files]:
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, allow_pickle=False, **arrays())
        yield {"f": file.getvalue()}
    file = io.BytesIO()
    np.savez(
        file, **{"params/kernel": np.zeros((3, 2), "V2"), "opt/step": np.asfortranarray(np.ones((3, 2)))}
    )
    yield {"f": file.getvalue()}


def _orbax() -> Iterator[Files]:
    import orbax.checkpoint

    tree = {"params": {"stem": {"kernel": np.arange(6.0).reshape(2, 3)}, "bias": np.ones(3, np.float32)}}
    for together in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder, "saved")
            orbax.checkpoint.PyTreeCheckpointer(use_ocdbt=together).save(place, tree)
            yield {
                path.relative_to(place).as_posix(): path.read_bytes()
                for path in sorted(place.rglob("*"))
                if path.is_file()
            }


def _torch() -> Iterator[Files]:
    """Returns both containers, made by pickling stand-ins under PyTorch's names."""
    for order in (None, b"little", b"big"):
        found = {key: _Tensor(str(number), array) for number, (key, array) in enumerate(arrays().items())}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", _pickled({"state_dict": found, "epoch": 3}))
            if order is not None:
                archive.writestr("archive/byteorder", order)
            for tensor in found.values():
                archive.writestr(f"archive/data/{tensor.key}", tensor.array.tobytes())
        yield {"f": file.getvalue()}
    found = {key: _Tensor(str(number), array) for number, (key, array) in enumerate(arrays().items())}
    parts = [_pickled(value) for value in (0x1950A86A20F9469CFC6C, 1001, {}, found, [*map(str, range(4))])]
    for tensor in found.values():
        parts.append(struct.pack("<q", tensor.array.size) + tensor.array.tobytes())
    yield {"f": b"".join(parts)}


def _keras() -> Iterator[Files]:
    import h5py

    for names in (("conv", ("conv/kernel:0", "conv/bias:0")), ("dense_9", ("dense_9/kernel:0",))):
        file = io.BytesIO()
        with h5py.File(file, "w") as hdf:
            layer, variables = names
            hdf.attrs["layer_names"] = np.array([layer.encode()])
            group = hdf.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in variables])
            for variable in variables:
                group.create_dataset(variable, data=np.ones((2, 3), np.float32))
        yield {"f": file.getvalue()}
    file = io.BytesIO()  # a whole model of Keras, with texts of variable length and groups in groups
    with h5py.File(file, "w") as hdf:
        hdf.attrs["keras_version"], hdf.attrs["backend"] = "3.15.1", "jax"
        group = hdf.create_group("model_weights")
        group.attrs["layer_names"] = ["conv", "network", "dropout"]
        for layer, inside in (("conv", ("conv",)), ("network", ("a", "b")), ("dropout", ())):
            names = [f"{layer}/{name}/kernel" for name in inside]
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = names
            for name in names:
                inner.create_dataset(name, data=np.ones((2, 3), np.float32))
    yield {"f": file.getvalue()}
    file = io.BytesIO()  # as Keras 3 writes it
    with h5py.File(file, "w") as hdf:
        for number, layer in enumerate(("dense", "dense_1")):
            variables = hdf.create_group(f"layers/{layer}/vars")
            variables.create_dataset("0", data=np.ones((2, 3), np.float32))
            variables.attrs["name"] = f"dense_{number + 9}"
    yield {"f": file.getvalue()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("metadata.json", "{}")
        members.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": []}}))
        members.writestr("model.weights.h5", file.getvalue())
    yield {"f": archive.getvalue()}


_MAKERS: dict[str, Callable[[], Iterator[Files]]] = {
    "safetensors": _safetensors,
    "safetensors-index": _index,
    "npz": _npz,
    "orbax": _orbax,
    "torch": _torch,
    "keras": _keras,
}


class _Tensor:
    """A stand-in that is pickled like a tensor of PyTorch."""

    def __init__(self, key: str, array: np.ndarray) -> None:
        self.key, self.array = key, array


class _Global:
    """A stand-in that is pickled like a global of PyTorch."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


_STORAGES = {
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}


def _pickled(value: Any) -> bytes:
    """Returns the value in opcodes of protocol 2."""

    def text(string: str) -> bytes:
        return b"X" + struct.pack("<I", len(string)) + string.encode()

    def write(value: Any) -> bytes:
        match value:
            case dict():
                return b"}(" + b"".join(write(key) + write(item) for key, item in value.items()) + b"u"
            case list():
                return b"](" + b"".join(map(write, value)) + b"e"
            case tuple():
                return b"(" + b"".join(map(write, value)) + b"t"
            case _Global():
                return f"c{value.module}\n{value.name}\n".encode()
            case _Tensor():
                kind = _Global("torch", _STORAGES[value.array.dtype.name])
                storage = write(("storage", kind, value.key, "cpu", value.array.size)) + b"Q"
                strides = tuple(step // value.array.itemsize for step in value.array.strides)
                rest = write((0, value.array.shape, strides, False))[1:-1]
                hooks = write(_Global("collections", "OrderedDict")) + b")R"
                return (
                    write(_Global("torch._utils", "_rebuild_tensor_v2"))
                    + b"("
                    + storage
                    + rest
                    + hooks
                    + b"tR"
                )
            case _:
                body = pickle.dumps(value, 2)
                return text(value) if isinstance(value, str) else body[2:-1]

    return b"\x80\x02" + write(value) + b"."


def mutated(files: Files, draw: random.Random, others: list[Files]) -> Files:
    """Returns the files with a few changes of bytes, numbers, lengths, or pieces of other files."""
    changed = dict(files)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        name = draw.choice([*changed])
        changed[name] = _changed(bytearray(changed[name]), draw, others)
    if len(changed) > 1 and draw.random() < 0.03:
        changed.pop(draw.choice([*changed]))
    return changed


_NUMBERS = [
    0,
    1,
    2,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]
_WORDS = [
    b"../",
    b"/etc/passwd",
    b"\0",
    b"{",
    b"[" * 2000,
    b'"',
    b"\\",
    b"-1",
    b"1e999",
    b"NaN",
    b"99999999999999999999",
]
_WORDS += [
    b"|O",
    b"<f4",
    b"V2",
    b"cos\nsystem\n",
    b"PK\x01\x02",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"9",
    b"4294967296",
]


def _changed(raw: bytearray, draw: random.Random, others: list[Files]) -> bytes:
    at = draw.randrange(len(raw) + 1)
    match draw.randrange(9):
        case 0 | 1 if at < len(raw):
            raw[at] = draw.randrange(256)
        case 2 if at < len(raw):
            raw[at] ^= 1 << draw.randrange(8)
        case 3:
            size = draw.choice((1, 2, 4, 8))
            number = draw.choice(_NUMBERS) % 256**size
            raw[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))
        case 4:
            del raw[at:]
        case 5:
            del raw[at : at + draw.choice((1, 2, 8, 64))]
        case 6:
            word = draw.choice(_WORDS)
            raw[at : at + draw.choice((0, len(word)))] = word
        case 7:
            end = draw.randrange(at, len(raw) + 1)
            raw[at:at] = raw[at:end] * draw.choice((1, 1, 2, 50)) if end - at < 500 else raw[at:end]
        case 8:
            piece = draw.choice([*draw.choice(others).values()])
            begin = draw.randrange(len(piece) + 1)
            raw[at : at + draw.choice((0, 16))] = piece[begin : begin + draw.choice((4, 16, 64))]
    digits = [index for index, byte in enumerate(raw[:4000]) if 48 <= byte <= 57]
    if digits and draw.random() < 0.25:
        raw[draw.choice(digits)] = draw.choice(b"0123456789-e")
    return bytes(raw)


Values = dict[str, tuple[str, tuple[int, ...], bytes]]
"""The dtype, shape and values of arrays by key."""


def values(path: Path, format: str | None) -> Values:
    """Returns all arrays of a file."""
    weights = read_weights(path, format)
    found = {}
    for key, info in weights.infos.items():
        array = weights[key]
        if array.shape != info.shape or not array.flags.c_contiguous:
            raise AssertionError(f"array differs from its description: {key}")
        found[key] = (str(array.dtype), array.shape, array.tobytes())
    return found


def outcome(path: Path, format: str | None, expected: Values | None = None) -> str:
    """Returns the result of reading a file: `read`, `refused`, or the error.

    Args:
        path: The file.
        format: Its format; None to detect it.
        expected: The arrays that the file has if it is read; None if a change is not detectable.
    """
    try:
        found = values(path, format)
        if expected is not None and found != expected:
            return "changed without an error"
    except CheckpointError as error:
        return "refused" if "\n" not in str(error) else "error of several lines"
    except FileNotFoundError:
        return "refused"
    except MemoryError:
        return "too much memory"
    except TimeoutError:
        return "too much time"
    except BaseException as error:  # any other error is a finding
        where = error.__traceback__
        while where and where.tb_next:
            where = where.tb_next
        line = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}" if where else ""
        return f"{type(error).__name__} at {line}: {str(error)[:80]}"
    return "read"


def place(files: Files, folder: Path, format: str) -> tuple[Path, str | None]:
    """Writes the files; returns the path to read, and its format."""
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return (folder / "f", format) if set(files) <= {"f"} else (folder, format)


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    if (
        event.startswith(("subprocess", "os.posix_spawn", "os.fork", "os.exec"))
        and hdf5_process.is_starting()
    ):
        return  # the process that reads HDF5 files, after the last one was killed
    if _guarding[0] and event.startswith(_FORBIDDEN):
        if event == "exec" and getattr(arguments[0], "co_filename", "").endswith(".py"):
            return  # a module that is imported later
        _broken.append(event)
        raise PermissionError(f"forbidden: {event}")


_guarding, _broken = [False], []


def _late(number: int, frame: Any) -> None:
    raise TimeoutError


def _child(numbers: range, seed: int, made: dict[str, list[Files]], say: Callable[[str], None]) -> None:
    """Reads the files of these numbers, and writes the result of each."""
    hdf5_process.SECONDS = STRUCTURE_SECONDS
    formats = [*made]
    every = [files for group in made.values() for files in group]
    valid: dict[tuple[str, int], Values | None] = {}
    for format in formats:  # imports modules and starts threads before the limits apply
        for index, files in enumerate(made[format]):
            with tempfile.TemporaryDirectory() as folder:
                path, asked = place(files, Path(folder), format)
                found = values(path, asked)
            checked = all(raw.startswith(CHECKED.encode("latin-1")) for raw in files.values())
            valid[format, index] = found if checked else None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _late)
    sys.addaudithook(_forbid)
    for number in numbers:
        draw = random.Random(f"{seed}/{number}")
        format = formats[number % len(formats)]
        index = draw.randrange(len(made[format]))
        files = mutated(made[format][index], draw, every)
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            path, asked = place(files, Path(folder), format)
            say(f"{number}\tstarted")
            signal.alarm(SECONDS)
            _guarding[0] = True
            found = outcome(path, asked if draw.random() < 0.7 else None, valid[format, index])
            _guarding[0] = False
            signal.alarm(0)
            say(f"{number}\t{f'ran {_broken[0]}' if _broken else found}")
            _broken.clear()


def fuzz(
    count: int, seed: int = 0, keep: Path | None = None, progress: Callable[[int], None] = lambda done: None
) -> dict[str, collections.Counter[str]]:
    """Reads that many changed files in child processes, and counts the results by format.

    Args:
        count: Files.
        seed: Seed of the changes.
        keep: Folder for files that are findings; None keeps none.
        progress: Called with the number of finished files.
    """
    made = seeds()
    formats = [*made]
    counts: dict[str, collections.Counter[str]] = {format: collections.Counter() for format in formats}
    every = [files for group in made.values() for files in group]
    begin = 0
    with tempfile.TemporaryDirectory() as scratch:
        seeds_at, said_at = Path(scratch, "seeds"), Path(scratch, "said")
        seeds_at.write_bytes(pickle.dumps(made))
        while begin < count:
            stop = min(begin + BATCH * 20, count)
            command = [sys.executable, __file__, "--child", str(begin), str(stop), str(seed)]
            process = os.posix_spawn(sys.executable, [*command, str(seeds_at), str(said_at)], os.environ)
            status = _watched(process, said_at)
            last, open_ = begin - 1, None
            for line in said_at.read_text().splitlines():
                number, _, found = line.partition("\t")
                last, open_ = int(number), int(number) if found == "started" else None
                if found != "started":
                    _count(counts, last, formats, found, keep, seed, made, every)
            if open_ is not None:
                _count(counts, open_, formats, f"crash: status {status}", keep, seed, made, every)
            elif status != 0 or last < begin:
                raise RuntimeError(f"the child process failed to start: status {status}")
            begin = last + 1
            progress(begin)
    return counts


def _watched(process: int, said: Path) -> int:
    """Waits for the child, kills it if a file takes far too long, and returns its status."""
    heard, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        size = said.stat().st_size if said.exists() else 0
        if size != heard:
            heard, since = size, time.monotonic()
        elif time.monotonic() - since > 60 + 3 * SECONDS:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.05)


def _count(
    counts: Any, number: int, formats: Any, found: str, keep: Any, seed: int, made: Any, every: Any
) -> None:
    format = formats[number % len(formats)]
    counts[format][found] += 1
    if keep is not None and found not in _HARMLESS and counts[format][found] <= 3:
        draw = random.Random(f"{seed}/{number}")
        folder = keep / f"{format}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        place(mutated(made[format][draw.randrange(len(made[format]))], draw, every), folder, format)


def findings(counts: dict[str, collections.Counter[str]]) -> dict[str, int]:
    """Returns the findings and their counts."""
    return {
        f"{format}: {found}": times
        for format, group in counts.items()
        for found, times in group.items()
        if found not in _HARMLESS
    }


def main() -> None:
    """Reads the command line."""
    if sys.argv[1:2] == ["--child"]:
        begin, stop, seed, seeds_at, said_at = sys.argv[2:]
        made = pickle.loads(Path(seeds_at).read_bytes())  # the child mode of this program
        with Path(said_at).open("w", buffering=1) as said:
            _child(
                range(int(begin), int(stop)),
                int(seed),
                made,
                lambda line: print(ascii(line)[1:-1].replace("\\t", "\t"), file=said),
            )
        os._exit(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000, help="how many files to read")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes")
    parser.add_argument("--keep", type=Path, help="folder for the files that are findings")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    began = time.monotonic()
    counts = fuzz(arguments.files, arguments.seed, arguments.keep)
    rate = arguments.files / (time.monotonic() - began)
    rows = [
        {
            "format": format,
            "files": str(group.total()),
            "read": str(group["read"]),
            "refused": str(group["refused"]),
            "findings": str(group.total() - group["read"] - group["refused"]),
        }
        for format, group in counts.items()
    ]
    title = f"{arguments.files} damaged weight files, {rate:.0f} a second, {datetime.date.today()}"
    report(title, rows, arguments.out, packages=("numpy", "safetensors", "tensorstore"))
    for found, times in findings(counts).items():
        print(f"{times:6} {found}")
    sys.exit(1 if findings(counts) else 0)


if __name__ == "__main__":
    main()
