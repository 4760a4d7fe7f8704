"""The head and the last stage of ResNet-50: ImageNet-1k in a bucket, on a v5e-64.

transfer-jax train imagenet1k_resnet50_last --data-dir gs://BUCKET/tensorflow_datasets --workdir gs://BUCKET/RUN

The plan (`--topology v5e:8x8`) needs 0.3 GB of the 16 GB of a chip for a step of 2,048 images, and
prints a bound and an estimate of its time. Before that, the features (262 GB) are computed once.
Expect the reading of images to take most of that time, and later runs on the same features to begin
at once. A host reads 16 GB of them in each epoch: with 20 in `TRANSFER_JAX_OBJECT_GIGABYTES`, only
once.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "tfds:imagenet2012",
    "resnet50",
    "last",
    chips=64,
    images_per_chip=32,
    epochs=5,
    gigabytes=342,
    eval_images="tfds:imagenet2012:validation",
)
