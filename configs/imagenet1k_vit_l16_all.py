"""Everything of ViT-L/16: ImageNet-1k in a bucket, on a v5e-64.

transfer-jax train imagenet1k_vit_l16_all --data-dir gs://BUCKET/tensorflow_datasets --workdir gs://BUCKET/RUN

The plan (`--topology v5e:8x8`) needs about 10.2 GB of the 16 GB of a chip for a step of 2,048
images, and prints a bound and an estimate of its time. Expect reading and decoding to need several
processes on each host (`read_processes`); `goodput.json` says which of the two is the bottleneck.
"""

from transfer_jax.config.imagenet import imagenet_config

config = imagenet_config(
    "tfds:imagenet2012",
    "vit_large_patch16_224",
    "all",
    chips=64,
    images_per_chip=32,
    epochs=20,
    eval_images="tfds:imagenet2012:validation",
)
