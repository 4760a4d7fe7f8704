"""The head and the last two blocks of ViT-B/16: ImageNet-1k in a bucket, on a v5e-64.

transfer-jax train imagenet1k_vit_b16_last --data-dir gs://BUCKET/tensorflow_datasets --workdir gs://BUCKET/RUN

The plan (`--topology v5e:8x8`) needs 0.9 GB of the 16 GB of a chip for a step of 2,048 images, and
prints a bound and an estimate of its time. Before that, the features (198 GB) are computed once.
Expect the reading of images to take most of that time, and later runs on the same features to begin
at once.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "tfds:imagenet2012",
    "vit_base_patch16_224",
    "last",
    chips=64,
    images_per_chip=32,
    epochs=5,
    gigabytes=258,
    eval_images="tfds:imagenet2012:validation",
)
