"""The head and the last two blocks of ViT-L/16: ImageNet-1k in a bucket, on a v5e-64.

transfer-jax train imagenet1k_vit_l16_last --data-dir gs://BUCKET/tensorflow_datasets --workdir gs://BUCKET/RUN

The plan (`--topology v5e:8x8`) needs about 2.1 GB of the 16 GB of a chip for a step of 2,048
images, and prints a bound and an estimate of its time. This includes the frozen blocks; a step on
cached features needs less. Before that, the features (264 GB) are computed once. Expect the reading
of images to take most of that time, and later runs on the same features to begin at once. A host
reads 16 GB of them in each epoch: with 20 in `TRANSFER_JAX_OBJECT_GIGABYTES`, only once.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "tfds:imagenet2012",
    "vit_large_patch16_224",
    "last",
    chips=64,
    images_per_chip=32,
    epochs=5,
    gigabytes=343,
    eval_images="tfds:imagenet2012:validation",
)
