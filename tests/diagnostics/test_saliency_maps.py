import numpy as np
import pytest
from PIL import Image

from transfer_jax.diagnostics.finished_run import FinishedRun, NotApplicable
from transfer_jax.diagnostics.saliency_maps import map_function, select_images, write_maps
from transfer_jax.report.progress import Silent


def test_the_worst_mistakes_first():
    labels = np.array([0, 0, 0, 0, 1, 1])
    of_first = np.array([0.9, 0.4, 0.1, 0.8, 0.7, 0.2])
    probabilities = np.stack([of_first, 1 - of_first], -1)
    mistakes, right = select_images(probabilities, labels, 3, seed=0)
    assert mistakes.tolist() == [2, 4]  # 0.1 and 0.3 for the true class; then 0.4
    assert len(right) == 1
    assert set(right) <= {0, 3, 5}
    assert select_images(probabilities, labels, 100, seed=0)[0].tolist() == [2, 4, 1]
    assert select_images(probabilities, labels, 100, seed=0)[1].tolist() == [0, 3, 5]


def test_few_mistakes_leave_room_for_others():
    probabilities, labels = np.tile([0.9, 0.1], (10, 1)), np.zeros(10, int)
    mistakes, right = select_images(probabilities, labels, 6, seed=0)
    assert len(mistakes) == 0
    assert len(right) == 6


def test_files(finished):
    entries = write_maps(finished, 5)
    folder = finished.workdir / "diagnostics"
    assert sorted(path.name for path in folder.iterdir()) == sorted(entry["image"] for entry in entries)
    known = finished.predictions
    for entry in entries:
        row = known.names.index(entry["name"])
        assert entry["label"] == known.class_names[known.labels[row]]
        assert entry["predicted"] == known.class_names[known.probabilities[row].argmax()]
        assert (entry["label"] == entry["predicted"]) == ("right" in entry["image"])
        with Image.open(folder / entry["image"]) as picture:
            assert picture.format == "JPEG"
            assert picture.size == (384, 192)
        assert (folder / entry["image"]).stat().st_size < 60_000
    foreign = [".DS_Store", "._01-right.jpg", "01-right (copy).jpg", "holiday.jpg"]
    for name in foreign:
        (folder / name).touch()
    fewer = write_maps(finished, 2)
    wanted = [*foreign, *(entry["image"] for entry in fewer)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(wanted)


def test_the_method_depends_on_the_network(convolutional, transformer):
    assert map_function(FinishedRun(transformer, Silent()))[0] == "attention rollout"
    finished = FinishedRun(convolutional, Silent())
    assert map_function(finished)[0] == "Grad-CAM at top"


def test_a_head_on_all_blocks_has_no_map(convolutional, monkeypatch):
    finished = FinishedRun(convolutional, Silent())
    monkeypatch.setitem(finished.run.config.__dict__, "taps", True)
    with pytest.raises(NotApplicable, match=r"the head reads all blocks \(taps\)"):
        map_function(finished)
