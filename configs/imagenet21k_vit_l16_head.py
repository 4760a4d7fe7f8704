"""A head on ViT-L/16: ImageNet-21k in a bucket, on a v5e-64.

transfer-jax train imagenet21k_vit_l16_head --images gs://BUCKET/imagenet21k --workdir gs://BUCKET/RUN

The plan (`--topology v5e:8x8`) needs 1.6 GB of the 16 GB of a chip for a step of 16,384 images, and
prints a bound and an estimate of its time. Before that, the features (29 GB) are computed once.
Expect the reading of images to take most of that time, and later runs on the same features to begin
at once. The folder in the bucket is made by `transfer-jax pack`.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "gs://BUCKET/imagenet21k",
    "vit_large_patch16_224",
    "head",
    chips=64,
    images_per_chip=256,
    epochs=10,
    gigabytes=50,
)
