"""Everything of ResNet-50: ImageNet-21k in a bucket, on a v5e-256.

transfer-jax train imagenet21k_resnet50_all --images gs://BUCKET/imagenet21k --workdir gs://BUCKET/RUN

The plan (`--topology v5e:16x16`) needs about 1.6 GB of the 16 GB of a chip for a step of 8,192
images, and prints a bound and an estimate of its time. These are the figures of 1,000 classes: the
larger head adds 43 million parameters, 0.7 GB with its gradients and moments. Expect reading and
decoding to need several processes on each host (`read_processes`); `goodput.json` says which of the
two is the bottleneck. The folder in the bucket is made by `transfer-jax pack`.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "gs://BUCKET/imagenet21k", "resnet50", "all", chips=256, images_per_chip=32, epochs=5
)
