"""The head and the last stage of ResNet-50: ImageNet-21k in a bucket, on a v5e-256.

transfer-jax train imagenet21k_resnet50_last --images gs://BUCKET/imagenet21k --workdir gs://BUCKET/RUN

The plan (`--topology v5e:16x16`) needs about 0.3 GB of the 16 GB of a chip for a step of 8,192
images, and prints a bound and an estimate of its time. These are the figures of 1,000 classes: the
larger head adds 43 million parameters, 0.7 GB with its gradients and moments. Before that, the
features (2.9 TB) are computed once. Expect the reading of images to take most of that time, and
later runs on the same features to begin at once. A host reads 45 GB of them in each epoch: with 55
in `TRANSFER_JAX_OBJECT_GIGABYTES`, only once. The folder in the bucket is made by `transfer-jax
pack`.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "gs://BUCKET/imagenet21k", "resnet50", "last", chips=256, images_per_chip=32, epochs=3, gigabytes=3780
)
