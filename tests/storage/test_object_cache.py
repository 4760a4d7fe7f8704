import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from transfer_jax.storage import object_cache
from transfer_jax.storage.object_cache import ObjectCache

SIZE = 8192


def filled(cache: ObjectCache, count: int, start: int = 0) -> None:
    """Adds entries, each used a second later than the one before."""
    for number in range(start, start + count):
        assert cache.put(f"k{number}", bytes([number]) * SIZE)
        used(cache, number)


def used(cache: ObjectCache, number: int) -> None:
    path = cache.path(f"k{number}", SIZE)
    assert path is not None
    os.utime(path, (number + 1e9, number + 1e9))


def present(cache: ObjectCache, count: int) -> set[int]:
    return {number for number in range(count) if cache.path(f"k{number}", SIZE) is not None}


def test_entries_are_read_back(tmp_path):
    cache = ObjectCache(tmp_path, 1)
    assert cache.get("a", 3) is None
    assert cache.put("a", b"abc")
    assert cache.get("a", 3) == b"abc"
    assert cache.get("a", 4) is None
    cache.remove("a")
    assert cache.get("a", 3) is None


def test_the_least_recently_used_entries_are_deleted(tmp_path):
    cache = ObjectCache(tmp_path, 10 * SIZE / 1e9)
    filled(cache, 10)
    assert cache.get("k0", SIZE) is not None
    assert cache.put("k10", bytes(SIZE))
    assert present(cache, 11) == {0, *range(3, 11)}
    assert cache.size() <= 10 * SIZE


def test_processes_share_a_folder(tmp_path):
    one, two = ObjectCache(tmp_path, 10 * SIZE / 1e9), ObjectCache(tmp_path, 10 * SIZE / 1e9)
    filled(one, 8)
    filled(two, 8, start=8)
    assert cache_bytes(tmp_path) <= 10 * SIZE
    assert one.get("k15", SIZE) == two.get("k15", SIZE) == bytes([15]) * SIZE


def cache_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "entries").rglob("*") if path.is_file())


def test_threads_share_a_cache(tmp_path):
    cache = ObjectCache(tmp_path, 20 * SIZE / 1e9)

    def work(start: int) -> None:
        for number in range(start, start + 25):
            cache.put(f"k{number}", bytes([number]) * SIZE)
            found = cache.get(f"k{number - 3}", SIZE)
            assert found in (None, bytes([(number - 3) % 256]) * SIZE)

    threads = [threading.Thread(target=work, args=(25 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache_bytes(tmp_path) <= 24 * SIZE


def test_an_entry_above_the_limit_is_not_kept(tmp_path):
    cache = ObjectCache(tmp_path, SIZE / 1e9)
    assert not cache.put("large", bytes(SIZE + 1))
    assert not ObjectCache(tmp_path, 0).put("any", b"x")
    assert cache.size() == 0


def test_a_disk_with_little_space_is_left_alone_and_logged_once(tmp_path, monkeypatch, caplog):
    cache = ObjectCache(tmp_path, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 2**30})())
    with caplog.at_level(logging.WARNING, "transfer_jax"):
        assert not cache.put("a", b"abc")
        assert not cache.put("b", b"abc")
    assert caplog.text.count("keeps no more objects") == 1
    assert object_cache.FOLDER in caplog.text


def test_a_write_on_a_full_disk_leaves_nothing(tmp_path):
    cache = ObjectCache(tmp_path, 1)

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    assert cache.add("a", 8, write) is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"]
    with pytest.raises(ValueError, match="4 bytes were read, expected 8"):
        cache.add("s3://b/a tag", 8, lambda path: path.write_bytes(b"half"))


def test_an_error_of_the_writer_is_raised(tmp_path):
    def write(path: Path) -> None:
        raise ConnectionError("reset")

    cache = ObjectCache(tmp_path, 1)
    with pytest.raises(ConnectionError):
        cache.add("a", 8, write)
    assert cache.path("a", 8) is None


def test_a_pickled_cache_has_the_same_folder_and_limit(tmp_path):
    cache = ObjectCache(tmp_path, 0.5)
    cache.put("a", b"abc")
    again = pickle.loads(pickle.dumps(cache))
    assert (again.folder, again.limit, again.get("a", 3)) == (tmp_path, cache.limit, b"abc")


@pytest.mark.parametrize(("given", "expected"), [(None, 20.0), ("2.5", 2.5)])
def test_the_limit_comes_from_the_environment(tmp_path, monkeypatch, given, expected):
    monkeypatch.delenv(object_cache.GIGABYTES, raising=False)
    if given is not None:
        monkeypatch.setenv(object_cache.GIGABYTES, given)
    monkeypatch.setenv(object_cache.FOLDER, str(tmp_path))
    cache = ObjectCache()
    assert (cache.folder, cache.limit) == (tmp_path, int(expected * 1e9))


@pytest.mark.parametrize("value", ["much", "-1", "inf"])
def test_an_invalid_limit_names_the_variable(tmp_path, monkeypatch, value):
    monkeypatch.setenv(object_cache.GIGABYTES, value)
    with pytest.raises(ValueError, match=f"{object_cache.GIGABYTES} must be .* got '{value}'"):
        ObjectCache(tmp_path)


def test_a_killed_writer_leaves_complete_entries_only(tmp_path):
    program = (
        "import sys, os\n"
        "from transfer_jax.storage.object_cache import ObjectCache\n"
        "cache = ObjectCache(sys.argv[1], 1)\n"
        "cache.put('a', bytes(100))\n"
        "def write(path):\n"
        "    path.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
        "cache.add('b', 100, write)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -9
    cache = ObjectCache(tmp_path, 1)
    assert cache.get("a", 100) == bytes(100)
    assert cache.path("b", 100) is None
    left = [*(tmp_path / "unfinished").iterdir()]
    os.utime(left[0], (0, 0))
    cache.put("c", b"abc")
    assert [*(tmp_path / "unfinished").iterdir()] == []
