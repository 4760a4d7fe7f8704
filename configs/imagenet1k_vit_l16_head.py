"""A head on ViT-L/16: ImageNet-1k in a bucket, on a v5e-16.

transfer-jax train imagenet1k_vit_l16_head --data-dir gs://BUCKET/tensorflow_datasets --workdir gs://BUCKET/RUN

The plan (`--topology v5e:4x4`) needs 1.2 GB of the 16 GB of a chip for a step of 4,096 images, and
prints a bound and an estimate of its time. Before that, the features (2.6 GB) are computed once.
Expect the reading of images to take most of that time, and later runs on the same features to begin
at once.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "tfds:imagenet2012",
    "vit_large_patch16_224",
    "head",
    chips=16,
    images_per_chip=256,
    epochs=20,
    gigabytes=50,
    eval_images="tfds:imagenet2012:validation",
)
