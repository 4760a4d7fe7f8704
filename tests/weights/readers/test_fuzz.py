"""Two thousand damaged files; `benchmarks/fuzz_readers.py` reads any number."""

import signal
import subprocess
import sys
from pathlib import Path

import fuzz_readers
import pytest

from transfer_jax.weights.readers import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_file_is_read_or_refused(tmp_path):
    counts = fuzz_readers.fuzz(2_000, seed=1, keep=tmp_path)
    assert sum(group.total() for group in counts.values()) == 2_000
    assert fuzz_readers.findings(counts) == {}
    for format, group in counts.items():
        assert min(group["read"], group["refused"]) > 0, format


def test_no_format_is_left_out():
    assert set(fuzz_readers.seeds()) == set(FORMATS)


MISBEHAVING = """
import os, socket, subprocess, sys
import fuzz_readers
from pathlib import Path

def loop():
    while True:
        pass

acts = [
    lambda: os.system("true"), lambda: exec("1 + 1"), lambda: subprocess.run(["true"]), socket.socket,
    lambda: bytearray(8 << 30), loop, lambda: [][0], lambda: 1, os.abort,
]
sound = fuzz_readers.read_weights
left = iter(acts)

def read(path, format):
    if fuzz_readers._guarding[0]:
        next(left)()
    return sound(path, format)

fuzz_readers.read_weights, fuzz_readers.SECONDS = read, 1
fuzz_readers.mutated = lambda files, draw, others: files
made = {"safetensors": fuzz_readers.seeds()["safetensors"]}
fuzz_readers._child(range(len(acts)), 0, made, lambda line: print(line, flush=True))
"""


def test_forbidden_actions_of_a_reader_are_found():
    done = subprocess.run(
        [sys.executable, "-c", MISBEHAVING],
        cwd=Path(fuzz_readers.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.split("\t")[1] for line in done.stdout.splitlines() if not line.endswith("started")]
    assert found[:4] == ["ran os.system", "ran exec", "ran subprocess.Popen", "ran socket.__new__"]
    assert found[4:6] == ["too much memory", "too much time"]
    assert found[6].startswith("IndexError at")
    assert found[7:] == ["read"]
    assert done.stdout.splitlines()[-1] == "8\tstarted"
    assert done.returncode == -signal.SIGABRT
