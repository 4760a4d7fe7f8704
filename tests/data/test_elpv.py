import os
import signal
import subprocess
import sys
from typing import Any

import elpv_dataset.utils
import numpy as np
import pytest

from transfer_jax.data import elpv, elpv_builder, from_elpv

KILLED = """
import sys, time
from transfer_jax.data import elpv, elpv_builder
images = elpv_builder.Elpv._generate_examples
def slow(self, folder):
    for number, example in enumerate(images(self, folder)):
        if number == 100:
            print("writing", file=sys.__stdout__, flush=True)
            time.sleep(600)
        yield example
elpv_builder.Elpv._generate_examples = slow
elpv.prepare_elpv(sys.argv[1])
"""


@pytest.fixture(scope="module")
def package():
    """Images, probabilities and types from the reader of the authors."""
    return elpv_dataset.utils.load_dataset()


def test_images_equal_those_of_the_package(elpv_data_dir, package):
    images, _, _ = package
    dataset = from_elpv(data_dir=elpv_data_dir)
    assert len(dataset) == 2624
    for i in range(0, 2624, 41):
        np.testing.assert_array_equal(dataset.image(i), np.stack([images[i]] * 3, axis=-1))
        assert dataset.names[i] == f"images/cell{i + 1:04d}.png"


@pytest.mark.parametrize(
    ("target", "counts"), [("any", (1508, 1116)), ("likely", (1803, 821)), ("sure", (1508, 715))]
)
def test_labels_of_each_target(elpv_data_dir, package, target, counts):
    images, probability, _ = package
    dataset = from_elpv(target, elpv_data_dir)
    assert dataset.counts() == dict(zip(("functional", "defective"), counts, strict=True))
    defective = {"any": probability > 0, "likely": probability > 0.5, "sure": probability == 1}[target]
    numbers = [int(name[-8:-4]) - 1 for name in dataset.names]
    np.testing.assert_array_equal(dataset.labels, defective[numbers])
    np.testing.assert_array_equal(dataset.image(777)[..., 1], images[numbers[777]])


def test_strata_are_probability_and_type(elpv_data_dir, package):
    _, probability, kind = package
    strata = from_elpv(data_dir=elpv_data_dir).strata
    groups = [f"{p:.2f} {k}" for p, k in zip(probability, kind, strict=True)]
    assert strata is not None
    assert len(set(zip(strata.tolist(), groups, strict=True))) == len(set(groups)) == len(set(strata)) == 8


def test_groups_are_the_types(elpv_data_dir, package):
    _, probability, kind = package
    dataset = from_elpv("sure", elpv_data_dir)
    assert dataset.groups is not None
    np.testing.assert_array_equal(dataset.groups, kind[(probability == 0) | (probability == 1)])


def test_each_target_has_its_own_fingerprint(elpv_data_dir):
    prints = [from_elpv(target, elpv_data_dir).fingerprint for target in ("any", "likely", "sure", "any")]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3]


def test_unknown_target_raises():
    with pytest.raises(ValueError, match=r"one of any, likely, sure, confidence, .*, got 'maybe'"):
        from_elpv("maybe")


def test_missing_package_raises(elpv_data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(elpv_builder, "PACKAGE", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match="python -m pip install elpv-dataset"):
        from_elpv(data_dir=tmp_path)
    assert len(from_elpv(data_dir=elpv_data_dir)) == 2624  # Prepared before, it is not needed.


@pytest.fixture
def few_images(monkeypatch):
    """Limits the dataset to 20 images."""
    images = elpv_builder.Elpv._generate_examples
    monkeypatch.setattr(
        elpv_builder.Elpv,
        "_generate_examples",
        lambda self, folder: (example for example, _ in zip(images(self, folder), range(20), strict=False)),
    )


@pytest.mark.usefixtures("few_images")
def test_preparation_prints_nothing_and_leaves_no_other_files(tmp_path, capfd):
    assert len(from_elpv(data_dir=tmp_path)) == 20
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == ["elpv"]
    assert os.listdir(tmp_path / "elpv") == ["1.0.0"]


@pytest.mark.usefixtures("few_images")
def test_concurrent_preparation(tmp_path, monkeypatch):
    prepare: Any = elpv_builder.Elpv.download_and_prepare

    def overtaken(self):
        monkeypatch.setattr(elpv_builder.Elpv, "download_and_prepare", prepare)
        elpv.prepare_elpv(tmp_path)
        return prepare(self)

    monkeypatch.setattr(elpv_builder.Elpv, "download_and_prepare", overtaken)
    assert len(from_elpv(data_dir=tmp_path)) == 20
    assert os.listdir(tmp_path) == ["elpv"]


def test_killed_preparation_leaves_no_dataset(tmp_path, request):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    (unfinished,) = tmp_path.glob(f"{elpv._UNFINISHED}*")
    assert os.listdir(tmp_path / "elpv") == []

    request.getfixturevalue("few_images")
    assert len(from_elpv(data_dir=tmp_path)) == 20
    assert unfinished.exists()  # It might have been another process, still writing.
    (tmp_path / "elpv").rename(tmp_path / "elsewhere")
    os.utime(unfinished, (0, 0))
    from_elpv(data_dir=tmp_path)
    assert not unfinished.exists()


def test_confidence_weights_the_defective_cells(elpv_data_dir, package):
    _, probability, _ = package
    dataset = from_elpv("confidence", elpv_data_dir)
    assert dataset.counts() == from_elpv("any", elpv_data_dir).counts()
    assert dataset.weights is not None
    np.testing.assert_allclose(dataset.weights, np.where(probability == 0, 1, probability), atol=1e-3)
    assert from_elpv("any", elpv_data_dir).weights is None
