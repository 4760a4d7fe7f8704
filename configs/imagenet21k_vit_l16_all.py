"""Everything of ViT-L/16: ImageNet-21k in a bucket, on a v5e-256.

transfer-jax train imagenet21k_vit_l16_all --images gs://BUCKET/imagenet21k --workdir gs://BUCKET/RUN

The plan (`--topology v5e:16x16`) needs about 10.2 GB of the 16 GB of a chip for a step of 8,192
images, and prints a bound and an estimate of its time. These are the figures of 1,000 classes: the
larger head adds 21 million parameters, 0.3 GB with its gradients and moments. Expect reading and
decoding to need several processes on each host (`read_processes`); `goodput.json` says which of the
two is the bottleneck. The folder in the bucket is made by `transfer-jax pack`.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "gs://BUCKET/imagenet21k", "vit_large_patch16_224", "all", chips=256, images_per_chip=32, epochs=5
)
