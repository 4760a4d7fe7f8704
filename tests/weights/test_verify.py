import dataclasses
import sys
from pathlib import Path

import pytest

from transfer_jax.models import Preprocessing
from transfer_jax.tasks import SingleLabel
from transfer_jax.weights.export_record import ExportRecord
from transfer_jax.weights.verify import VerificationError, verify_export

SUMS = """
def model(images):
    return images.astype("float64").sum((1, 2)) / open("scale.txt").read().count("x")
"""


def record(**changes) -> ExportRecord:
    """The record of a program that divides the sums of the channels by 1000."""
    made = ExportRecord(
        target="sums",
        model="resnet18",
        load=SUMS,
        module="numpy",
        runtime="function",
        note="",
        shape=("b", 4, 4, 3),
        dtype="float32",
        values="pixels",
        output="logits",
        task=SingleLabel(("ant", "bee", "cat")).to_json(),
        preprocessing=Preprocessing(image_size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        outputs=(0.0,),
    )
    sums = made.images().sum((0, 1, 2)) / 1000
    return dataclasses.replace(made, **{"outputs": tuple(sums.tolist()), **changes})


@pytest.fixture
def file(tmp_path):
    (tmp_path / "scale.txt").write_text("x" * 1000)
    return tmp_path / "net.bin"


def test_the_same_outputs_pass_in_the_folder_of_the_file(file):
    result = verify_export(file, record())
    assert result.difference < 1e-5
    assert result.library.startswith("numpy 2.")
    assert "up to" in str(result)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"outputs": (0.3, 0.6, 1.0)}, VerificationError, r"computes other outputs with numpy .*passes"),
        ({"outputs": (1.0, 2.0)}, VerificationError, r"have the shape \(1, 3\), not \(1, 2\)"),
        ({"load": "raise KeyError('conv1.weight')"}, VerificationError, "does not load with numpy: .*conv1"),
        ({"load": "def model(images): return images[:, 0, 0] * float('nan')"}, VerificationError, "is nan"),
        ({"module": "no_such_library"}, ImportError, "not verified: no_such_library is not installed"),
        ({"load": ""}, ValueError, "the name of the network resnet18 in sums is unknown"),
    ],
    ids=["difference", "shape", "load", "nan", "missing", "unknown"],
)
def test_what_does_not_pass(file, changes, error, message):
    with pytest.raises(error, match="(?s)" + message):
        verify_export(file, record(**changes))


def test_another_python(file):
    with pytest.raises(ImportError, match=sys.executable):
        verify_export(file, record(module="no_such_library"), Path(sys.executable))
    with pytest.raises(OSError, match="no-such-python"):
        verify_export(file, record(), file.parent / "no-such-python")


def test_images_of_networks_with_channels_first():
    made = record(shape=("b", 3, 4, 4), values="normalized")
    assert made.images().shape == (1, 3, 4, 4)
    assert made.images().flags.c_contiguous
