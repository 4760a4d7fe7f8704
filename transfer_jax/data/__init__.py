"""Data: sources, splits, scans, transforms, augmentation and batches of images."""

from typing import TYPE_CHECKING

from transfer_jax.lazy import lazy_names

if TYPE_CHECKING:
    from transfer_jax.data.arrays import from_arrays
    from transfer_jax.data.augmentation import Augmentation
    from transfer_jax.data.dataset import ImageDataset, NotImagesError, drop_images
    from transfer_jax.data.decode import BadImageError, decode_image
    from transfer_jax.data.elpv import from_elpv
    from transfer_jax.data.examples import from_examples
    from transfer_jax.data.fetch import augmented_image_fetch, image_fetch, view_fetch
    from transfer_jax.data.finding import Finding
    from transfer_jax.data.image_folder import from_folder
    from transfer_jax.data.image_table import from_csv
    from transfer_jax.data.parts import Parts, has_own_test, split_in_parts
    from transfer_jax.data.pipeline import Batches, listed_batches, ordered_batches, shuffled_batches
    from transfer_jax.data.quality_checks import find_problems
    from transfer_jax.data.remote.bucket_folder import from_bucket_folder
    from transfer_jax.data.remote.bucket_table import from_bucket_table
    from transfer_jax.data.remote.bucket_tfds import from_bucket_tfds
    from transfer_jax.data.remote.pack import pack
    from transfer_jax.data.remote.packed_records import from_records
    from transfer_jax.data.remote.parquet_shards import from_parquet_shards
    from transfer_jax.data.remote.tar_shards import from_tar_shards
    from transfer_jax.data.scan import ImageScan, scan_images
    from transfer_jax.data.sources import load_dataset
    from transfer_jax.data.split import has_own_split, limit_per_class, stratified_split
    from transfer_jax.data.tfds import default_data_dir, from_tfds
    from transfer_jax.data.transforms import eval_transform, train_transform

__all__ = [
    "Augmentation",
    "BadImageError",
    "Batches",
    "Finding",
    "ImageDataset",
    "ImageScan",
    "NotImagesError",
    "Parts",
    "augmented_image_fetch",
    "decode_image",
    "default_data_dir",
    "drop_images",
    "eval_transform",
    "find_problems",
    "from_arrays",
    "from_bucket_folder",
    "from_bucket_table",
    "from_bucket_tfds",
    "from_csv",
    "from_elpv",
    "from_examples",
    "from_folder",
    "from_parquet_shards",
    "from_records",
    "from_tar_shards",
    "from_tfds",
    "has_own_split",
    "has_own_test",
    "image_fetch",
    "limit_per_class",
    "listed_batches",
    "load_dataset",
    "ordered_batches",
    "pack",
    "scan_images",
    "shuffled_batches",
    "split_in_parts",
    "stratified_split",
    "train_transform",
    "view_fetch",
]
__getattr__, __dir__ = lazy_names(__name__, __file__)
