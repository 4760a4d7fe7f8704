import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from transfer_jax.data import (
    BadImageError,
    default_data_dir,
    from_tfds,
    load_dataset,
    tfds_labels,
    tfds_shards,
)


class TinyCats(tfds.core.GeneratorBasedBuilder):
    """Twelve patches of a photograph in three classes, and three patches without a label."""

    VERSION = tfds.core.Version("1.2.0")
    code_path = None

    def __init__(self, *, patches: list[bytes], **options):
        self.patches = patches  # Encoded: encoding an array takes TensorFlow.
        super().__init__(**options)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["left", "middle", "right"]),
            "column": np.int64,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(12, labelled=True),
            "test": self._generate_examples(3, labelled=False),
        }

    def _generate_examples(self, n, labelled):
        for i in range(n):
            yield i, {"image": self.patches[i], "label": i // 4 if labelled else -1, "column": 10 * i}


@pytest.fixture(scope="module")
def prepared_once(tmp_path_factory, cat, encode) -> Path:
    folder = tmp_path_factory.mktemp("tfds")
    patches = [encode(cat[:16, 10 * i : 10 * i + 20].copy()) for i in range(12)]
    TinyCats(patches=patches, data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def prepared(prepared_once, tmp_path) -> Path:
    """A copy of the prepared dataset that a test may damage."""
    shutil.copytree(prepared_once, tmp_path / "data")
    return tmp_path / "data"


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def columns(data_dir: Path, split: str) -> list[int]:
    """Returns the patches of a split according to tensorflow-datasets."""
    builder: Any = tfds.builder_from_directory(data_dir / "tiny_cats" / "1.2.0")
    return [int(example["column"]) for example in builder.as_data_source(split)]


@pytest.mark.parametrize("split", ["train", "train[:5]", "train[50%:]"])
def test_images_and_labels(prepared_once, cat, split):
    dataset = from_tfds("tiny_cats", split, prepared_once)
    expected = columns(prepared_once, split)
    assert len(dataset) == len(expected) == {"train": 12, "train[:5]": 5, "train[50%:]": 6}[split]
    assert dataset.class_names == ("left", "middle", "right")
    for i, column in enumerate(expected):
        assert dataset.labels[i] == column // 40
        np.testing.assert_array_equal(dataset.image(i), cat[:16, column : column + 20])
    assert dataset.names[4] == f"tiny_cats {split} 4"


def test_fingerprint_depends_on_split_version_and_files(prepared):
    prints = [
        from_tfds("tiny_cats", split, prepared).fingerprint for split in ("train", "train[:5]", "train")
    ]
    assert prints[0] == prints[2] != prints[1]
    (records,) = prepared.glob("tiny_cats/1.2.0/*train*record*")
    records.touch()
    assert from_tfds("tiny_cats", "train", prepared).fingerprint not in prints


def test_versions_and_configs(prepared):
    for version in ("1.10.0", "1.9.0"):
        shutil.copytree(prepared / "tiny_cats" / "1.2.0", prepared / "tiny_cats" / version)
        rewrite(prepared / "tiny_cats" / version / "dataset_info.json", version=version)
    prints = {
        v: from_tfds(f"tiny_cats:{v}", data_dir=prepared).fingerprint for v in ("1.2.0", "1.9.0", "1.10.0")
    }
    assert len(set(prints.values())) == 3
    assert from_tfds("tiny_cats", data_dir=prepared).fingerprint == prints["1.10.0"]
    with pytest.raises(
        ValueError, match=r"'tiny_cats:3.0.0' is not prepared .*tiny_cats:1.10.0, tiny_cats:1.2.0"
    ):
        from_tfds("tiny_cats:3.0.0", data_dir=prepared)

    for config in ("big", "small"):
        shutil.copytree(prepared / "tiny_cats" / "1.2.0", prepared / "other_cats" / config / "1.2.0")
    with pytest.raises(ValueError, match="several configs; choose one of other_cats/big, other_cats/small"):
        from_tfds("other_cats", data_dir=prepared)


def test_unprepared_dataset_raises(prepared_once, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"'dogs' is not prepared .*prepared there: tiny_cats:1.2.0.*array_record"
    ):
        from_tfds("dogs", data_dir=prepared_once)
    monkeypatch.setenv("TRANSFER_JAX_DATA", str(tmp_path / "empty"))
    assert default_data_dir() == tmp_path / "empty"
    with pytest.raises(ValueError, match=r"empty' \(prepared there: nothing\)"):
        from_tfds("tiny_cats")
    monkeypatch.setenv("TRANSFER_JAX_DATA", str(prepared_once))
    assert len(from_tfds("tiny_cats")) == 12
    monkeypatch.delenv("TRANSFER_JAX_DATA")
    assert default_data_dir() == Path.home() / ".cache" / "transfer_jax" / "data"


@pytest.mark.parametrize("split", ["validation", "train[:", "train[:200%]"])
def test_unknown_split_raises(prepared_once, split):
    with pytest.raises(
        ValueError, match=r"has no split '.*its splits are 'test' \(3 examples\), 'train' \(12 examples\)"
    ):
        from_tfds("tiny_cats", split, prepared_once)


def test_examples_without_a_label_raise(prepared_once):
    with pytest.raises(ValueError, match="split 'test' of tiny_cats has 3 examples without a label"):
        from_tfds("tiny_cats", "test", prepared_once)


def test_other_file_format_raises(prepared):
    rewrite(prepared / "tiny_cats" / "1.2.0" / "dataset_info.json", fileFormat="tfrecord")
    with pytest.raises(
        ValueError, match=r"prepared as tfrecord.*needs TensorFlow.*file_format='array_record'"
    ):
        from_tfds("tiny_cats", data_dir=prepared)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("image", r"tiny_cats/1.2.0 has no image for each example; its features are 'column', 'label'"),
        ("label", r"the label of tiny_cats/1.2.0 is one of 'column'; .* tfds:tiny_cats\?label=column"),
    ],
)
def test_dataset_without_image_or_label_raises(prepared, feature, message):
    file = prepared / "tiny_cats" / "1.2.0" / "features.json"
    features = json.loads(file.read_text())
    del features["featuresDict"]["features"][feature]
    file.write_text(json.dumps(features))
    with pytest.raises(ValueError, match=message):
        from_tfds("tiny_cats", data_dir=prepared)


@pytest.mark.parametrize(
    ("split", "count"),
    [
        ("train[:3]+train[10:]", 5),
        ("train[25%:50%]", 3),
        ("train[-2:]", 2),
        (tfds.even_splits("train", 5)[4], 2),
    ],
)
def test_parts_of_splits(prepared_once, cat, split, count):
    dataset = from_tfds("tiny_cats", split, prepared_once)
    expected = columns(prepared_once, split)
    assert len(dataset) == len(expected) == count
    for i, column in enumerate(expected):
        np.testing.assert_array_equal(dataset.image(i), cat[:16, column : column + 20])


def test_an_empty_part_raises(prepared_once):
    with pytest.raises(ValueError, match=r"split 'train\[:0\]' of tiny_cats/1.2.0 has no examples"):
        from_tfds("tiny_cats", "train[:0]", prepared_once)


def test_examples_without_a_label_are_left_out(prepared_once):
    dataset = from_tfds("tiny_cats", "test[:2]+train+test[2:]", prepared_once)
    assert dataset.notes == ("3 examples without a label are left out, of 15",)
    assert dataset.labels.tolist() == from_tfds("tiny_cats", "train", prepared_once).labels.tolist()
    assert dataset.names[0] == "tiny_cats test[:2]+train+test[2:] 2"


def test_a_chosen_label(prepared_once):
    dataset = load_dataset("tfds:tiny_cats:train[:6]?label=column&image=image", prepared_once)
    expected = columns(prepared_once, "train[:6]")
    assert [int(dataset.class_names[label]) for label in dataset.labels] == expected
    assert dataset.fingerprint != from_tfds("tiny_cats", "train[:6]", prepared_once).fingerprint
    with pytest.raises(ValueError, match=r"expected tfds:NAME\?image=KEY&label=KEY, got .*colour=red"):
        load_dataset("tfds:tiny_cats?colour=red", prepared_once)


def test_an_incomplete_or_damaged_dataset_raises(prepared):
    folder = prepared / "tiny_cats" / "1.2.0"
    (file,) = folder.glob("*train*record*")
    file.rename(folder / "elsewhere")
    with pytest.raises(ValueError, match=r"tiny_cats/1.2.0 is incomplete: .*train.* missing"):
        from_tfds("tiny_cats", data_dir=prepared)
    (folder / "features.json").write_text("{")
    with pytest.raises(ValueError, match=r"no prepared dataset that tensorflow-datasets .* can read"):
        from_tfds("tiny_cats", data_dir=prepared)


def test_a_dataset_in_the_folder_of_tensorflow_datasets(prepared_once, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared_once))
    with pytest.raises(
        ValueError, match=rf"It is prepared in '{prepared_once}'; set data_dir to this folder"
    ):
        from_tfds("tiny_cats", data_dir=tmp_path)


class Pairs(tfds.core.GeneratorBasedBuilder):
    """Four examples of two photographs, a damaged mask and a dictionary."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def __init__(self, *, pictures: list[bytes], **options):
        self.pictures = pictures
        super().__init__(**options)

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {
            "left": image,
            "right": image,
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "about": {"breed": tfds.features.ClassLabel(names=["x", "y"]), "place": tfds.features.Text()},
            "boxes": tfds.features.Sequence(tfds.features.BBoxFeature()),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(4):
            about = {"breed": i % 2, "place": "ÅB"[i // 2]}
            box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
            pictures = {"left": self.pictures[0], "right": self.pictures[1], "mask": b"no image"}
            yield i, {**pictures, "about": about, "boxes": [box]}


def test_only_the_chosen_features_are_decoded(cat, encode, tmp_path):
    patches = [cat[:8, :9].copy(), cat[8:16, :9].copy()]
    builder = Pairs(pictures=[*map(encode, patches)], data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    with pytest.raises(
        ValueError, match=r"the image of pairs/1.0.0 is one of 'left', 'mask', 'right'; choose"
    ):
        from_tfds("pairs", data_dir=tmp_path)
    dataset = from_tfds("pairs", data_dir=tmp_path, image="right")
    np.testing.assert_array_equal(dataset.image(3), patches[1])
    assert dataset.class_names == ("x", "y")
    assert dataset.notes == ()
    named = from_tfds("pairs", data_dir=tmp_path, image="left", label="about/place")
    np.testing.assert_array_equal(named.image(3), patches[0])
    assert named.class_names == ("B", "Å")
    assert named.counts() == {"B": 2, "Å": 2}


class TinyTargets(tfds.core.GeneratorBasedBuilder):
    """Six patches with tags, flags, an age and a place."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def __init__(self, *, patches: list[bytes], **options):
        self.patches = patches
        super().__init__(**options)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["cat", "dog", "emu"])),
            "flags": tfds.features.Tensor(shape=(2,), dtype=np.bool_),
            "age": np.float32,
            "place": tfds.features.Tensor(shape=(2,), dtype=np.float32),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(6):
            found = {"tags": [[], [1], [0, 2]][i % 3], "flags": np.array([i > 2, i % 2 > 0])}
            places = {"age": i / 2, "place": np.array([i, -i], np.float32)}
            yield i, {"image": self.patches[i], **found, **places}


@pytest.fixture(scope="module")
def targets(tmp_path_factory, cat, encode) -> Path:
    folder = tmp_path_factory.mktemp("targets")
    patches = [encode(cat[:16, 10 * i : 10 * i + 20].copy()) for i in range(6)]
    TinyTargets(patches=patches, data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize(
    ("label", "task", "names", "rows"),
    [
        ("tags", "multi_label", ("cat", "dog", "emu"), {(0, 0, 0), (0, 1, 0), (1, 0, 1)}),
        ("flags", "multi_label", ("label 0", "label 1"), {(0, 0), (0, 1), (1, 0), (1, 1)}),
        ("age", "regression", ("age",), {(i / 2,) for i in range(6)}),
        ("place", "regression", ("place 0", "place 1"), {(i, -i) for i in range(6)}),
    ],
)
def test_targets_other_than_classes(targets, label, task, names, rows):
    source = f"tfds:tiny_targets?label={label}"
    for wanted in ("auto", task) if label != "flags" else (task,):
        dataset = load_dataset(source, targets, task=wanted)
        assert (dataset.task.kind, dataset.class_names) == (task, names)
        assert {*map(tuple, dataset.labels.tolist())} == rows


def test_the_task_chooses_the_feature(targets):
    assert load_dataset("tfds:tiny_targets", targets, task="multi_label").class_names == ("cat", "dog", "emu")
    with pytest.raises(ValueError, match=r"the label of tiny_targets.* is one of 'age', 'place'"):
        load_dataset("tfds:tiny_targets", targets, task="regression")


class Lines:
    """A progress that keeps its lines."""

    def __init__(self):
        self.lines = []

    def start(self, task, total, *, done=0):
        self.lines.append(f"{task} {total}")

    def advance(self, images, **values): ...
    def finish(self): ...

    def log(self, message):
        self.lines.append(message)


@pytest.fixture
def indexed(prepared, monkeypatch):
    """The prepared dataset, of which an index is made."""
    monkeypatch.setattr(tfds_labels, "INDEXED_FROM", 1)
    return prepared


@pytest.mark.parametrize("split", ["train", "train[3:7]", "test[:2]+train+test[2:]"])
def test_index_has_the_labels_of_the_records(indexed, monkeypatch, split):
    progress = Lines()
    first = from_tfds("tiny_cats", split, indexed, progress=progress)
    assert (indexed / "tiny_cats/1.2.0/.transfer_jax_index").is_dir()
    assert "there is none yet" in progress.lines[0]
    with monkeypatch.context() as patch:
        patch.setattr(tfds_shards, "_opened", None)  # No file is opened.
        again = from_tfds("tiny_cats", split, indexed, progress=progress)
    assert len(progress.lines) == 2
    monkeypatch.setattr(tfds_labels, "INDEXED_FROM", 100)
    without = from_tfds("tiny_cats", split, indexed)
    for dataset in (first, again):
        np.testing.assert_array_equal(dataset.labels, without.labels)
        assert (dataset.fingerprint, dataset.notes) == (without.fingerprint, without.notes)
        assert [*dataset.names] == [*without.names]


def test_changed_records_are_indexed_again(indexed):
    from_tfds("tiny_cats", "train", indexed)
    (records,) = indexed.glob("tiny_cats/1.2.0/*train*record*")
    records.touch()
    progress = Lines()
    from_tfds("tiny_cats", "train", indexed, progress=progress)
    assert "the source has changed (1 of its 1 parts are new or changed" in progress.lines[0]


@pytest.mark.parametrize("label", ["tags", "age", "place"])
def test_index_has_targets_other_than_classes(targets, tmp_path, monkeypatch, label):
    shutil.copytree(targets, tmp_path / "data")
    without = from_tfds("tiny_targets", data_dir=targets, label=label)
    monkeypatch.setattr(tfds_labels, "INDEXED_FROM", 1)
    for _ in range(2):
        dataset = from_tfds("tiny_targets", data_dir=tmp_path / "data", label=label)
        np.testing.assert_array_equal(dataset.labels, without.labels)
        assert dataset.task == without.task


@pytest.mark.parametrize("threshold", [1, 100], ids=["index", "no index"])
def test_labels_beyond_the_classes_are_an_error(prepared, monkeypatch, threshold):
    monkeypatch.setattr(tfds_labels, "INDEXED_FROM", threshold)
    folder = prepared / "tiny_cats" / "1.2.0"
    features = json.loads((folder / "features.json").read_text())
    features["featuresDict"]["features"]["label"]["classLabel"]["numClasses"] = "2"
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "label.labels.txt").write_text("left\nmiddle\n")
    with pytest.raises(
        ValueError, match=r"record \d+ of tiny_cats-train.*has the label 2, but the 2 classes are 0 to 1"
    ):
        from_tfds("tiny_cats", "train", prepared)
    assert not [*folder.glob(".transfer_jax_index/*/index.json")]


@pytest.mark.parametrize("threshold", [1, 100], ids=["index", "no index"])
def test_truncated_shard_is_an_error(prepared, monkeypatch, threshold):
    monkeypatch.setattr(tfds_labels, "INDEXED_FROM", threshold)
    (records,) = prepared.glob("tiny_cats/1.2.0/*train*record*")
    records.write_bytes(records.read_bytes()[: records.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"tiny_cats-train.*is truncated or damaged .*; prepare the dataset"):
        from_tfds("tiny_cats", "train", prepared)


def test_shard_that_changes_during_a_run_is_not_read(prepared):
    dataset = from_tfds("tiny_cats", "train", prepared)
    again = pickle.loads(pickle.dumps(dataset))  # As another process receives it, with no file open.
    np.testing.assert_array_equal(again.image(3), dataset.image(3))
    again = pickle.loads(pickle.dumps(dataset))
    (records,) = prepared.glob("tiny_cats/1.2.0/*train*record*")
    records.touch()
    with pytest.raises(BadImageError, match=r"tiny_cats train 3: cannot be read .*has changed since"):
        again.image(3)


def test_several_records_are_read_at_once(prepared_once):
    dataset = from_tfds("tiny_cats", "train", prepared_once)
    some = dataset.subset([7, 1, 7, 4])
    assert some.contents([3, 0, 1]) == [dataset.read(index) for index in (4, 7, 1)]
    assert some.names == [f"tiny_cats train {index}" for index in (7, 1, 7, 4)]
    with pytest.raises(IndexError):
        dataset.read(12)
