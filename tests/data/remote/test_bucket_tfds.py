"""A dataset of tensorflow-datasets in a folder that is used like a bucket, and on a server of S3."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from local_bucket import Bucket, bucket_fixture, folder, s3, server_fixture

from transfer_jax.data import from_tfds, load_dataset
from transfer_jax.storage.byte_ranges import ChangedObjectError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
pytest.importorskip("pyarrow")


class BucketCats(tfds.core.GeneratorBasedBuilder):
    """Twelve patches of a photograph in three classes, the last two without a label."""

    VERSION = tfds.core.Version("1.2.0")
    code_path = None

    def __init__(self, *, patches: list[bytes], **options):
        self.patches = patches
        super().__init__(**options)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["left", "middle", "right"]),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(12)), "test": self._generate_examples(range(3, 6))}

    def _generate_examples(self, rows):
        for i in rows:
            yield i, {"image": self.patches[i], "label": i // 4 if i < 10 else -1}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, cat, encode) -> Path:
    root = tmp_path_factory.mktemp("tfds")
    patches = [encode(cat[:16, 10 * i : 10 * i + 20].copy()) for i in range(12)]
    BucketCats(patches=patches, data_dir=root, file_format="array_record").download_and_prepare()
    return root


server = server_fixture(folder, s3)
empty = bucket_fixture()


@pytest.fixture
def bucket(empty: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prepared: Path) -> Bucket:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    empty.put(prepared, "data")
    return empty


@pytest.mark.parametrize("source", ["bucket_cats", "bucket_cats:1.2.0:test", "bucket_cats:train[2:7]+test"])
def test_it_is_the_local_dataset(bucket, prepared, source):
    there = load_dataset(f"tfds:{source}", bucket.address("data"))
    here = load_dataset(f"tfds:{source}", prepared)
    assert [*there.names] == [*here.names]
    assert there.class_names == here.class_names
    np.testing.assert_array_equal(there.labels, here.labels)
    rows = range(len(here))
    assert there.contents(rows) == here.contents(rows)
    assert pickle.loads(pickle.dumps(there)).read(2) == here.read(2)


def shard(bucket: Bucket) -> str:
    (name,) = [name for name in bucket.objects("data/") if "train.array_record" in name]
    return f"bucket/{name}"


def test_a_truncated_shard_is_an_error(bucket):
    content = bucket.system.cat_file(shard(bucket))
    bucket.system.pipe_file(shard(bucket), content[:-65_536])
    with pytest.raises(ValueError, match=r"train.array_record-00000-of-00001 is truncated or damaged"):
        load_dataset("tfds:bucket_cats", bucket.address("data"))


def test_a_changed_shard_is_an_error(bucket):
    dataset = load_dataset("tfds:bucket_cats", bucket.address("data"))
    content = bucket.system.cat_file(shard(bucket))
    bucket.system.pipe_file(shard(bucket), content + bytes(65_536))
    with pytest.raises(ChangedObjectError, match="start again to index it again"):
        dataset.contents([0])


def test_a_dataset_that_is_not_prepared_is_named(bucket):
    with pytest.raises(ValueError, match=r"'dogs' is not prepared in '\w+://bucket/data'"):
        load_dataset("tfds:dogs", bucket.address("data"))
    with pytest.raises(ValueError, match="has no split 'val'; its splits are 'test'"):
        load_dataset("tfds:bucket_cats:val", bucket.address("data"))


def test_local_folders_are_read_by_array_record(prepared):
    assert len(from_tfds("bucket_cats", "train", prepared)) == 10
