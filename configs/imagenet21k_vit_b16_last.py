"""The head and the last two blocks of ViT-B/16: ImageNet-21k in a bucket, on a v5e-256.

transfer-jax train imagenet21k_vit_b16_last --images gs://BUCKET/imagenet21k --workdir gs://BUCKET/RUN

The plan (`--topology v5e:16x16`) needs 1.1 GB of the 16 GB of a chip for a step of 8,192 images,
and prints a bound and an estimate of its time. Before that, the features (2.2 TB) are computed
once. Expect the reading of images to take most of that time, and later runs on the same features to
begin at once. A host reads 34 GB of them in each epoch: with 42 in `TRANSFER_JAX_OBJECT_GIGABYTES`,
only once. The folder in the bucket is made by `transfer-jax pack`.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "gs://BUCKET/imagenet21k",
    "vit_base_patch16_224",
    "last",
    chips=256,
    images_per_chip=32,
    epochs=3,
    gigabytes=2850,
)
