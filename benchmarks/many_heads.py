"""Images/s of five heads on one trunk against one head, and of five LoRA adapters; sizes of the files.

    python benchmarks/many_heads.py [--model vit_small_patch16_224] [--heads-only]

The weights are random: speed and sizes do not depend on them. The five heads have 2 to 50 classes. The
programs are timed alternately on one batch of random pixels; the best of the repeats is printed.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from transfer_jax import create_model
from transfer_jax.adapters import add_adapters, merge_adapters, save_adapters
from transfer_jax.features import in_slices
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.models.registry import variant_of
from transfer_jax.models.shared_trunk import SharedTrunk

CLASSES = (2, 5, 10, 20, 50)


def trunk_of(models: dict) -> tuple:
    """Returns a compiled program of some models, and its arrays."""
    trunk = SharedTrunk(models)
    step = jax.jit(lambda arrays, x: in_slices(lambda part: trunk(arrays, part), x))
    return step, trunk


def adapted(model, text: str, seed: int):
    """Returns a copy of a model with trained adapters, merged."""
    made, rng = nnx.clone(model), np.random.default_rng(seed)
    add_adapters(made, text)
    params = split(made)[1]
    update(made, {p: x + 0.01 * rng.normal(size=x.shape) for p, x in params.items() if "/adapters/" in p})
    merge_adapters(made)
    return made


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--heads-only", action="store_true", help="leave the adapters out")
    options = parser.parse_args()
    size = variant_of(options.model).preprocessing.image_size
    first = create_model(options.model, CLASSES[0], image_size=size)
    heads = {f"{count} classes": nnx.clone(first) for count in CLASSES}
    for count, model in zip(CLASSES, heads.values(), strict=True):
        model.head.classifier = create_model(
            options.model, count, image_size=size, abstract_backbone=True
        ).head.classifier
    last = [name for name in first.backbone.block_names if name.startswith("blocks.")][-2:]
    selector = f"blocks({', '.join(map(repr, last))}) & match('qkv/kernel')"
    programs = {"one head": trunk_of({"one": first}), "five heads": trunk_of(heads)}
    if not options.heads_only:
        for name, text in {"in the last two blocks": f"lora({selector})", "in all blocks": "lora"}.items():
            models = {str(seed): adapted(first, text, seed) for seed in range(5)}
            programs[f"five adapters {name}"] = trunk_of(models)
    x = np.random.default_rng(0).normal(size=(options.batch, size, size, 3)).astype(np.float32)
    best = dict.fromkeys(programs, np.inf)
    for step, trunk in programs.values():
        jax.block_until_ready(step(trunk.arrays, x))
    for _ in range(options.repeats):
        for name, (step, trunk) in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(step(trunk.arrays, x))
            best[name] = min(best[name], time.perf_counter() - started)
    one = best["one head"]
    print(f"{options.model}, batch {options.batch}, best of {options.repeats}")
    for name, (_, trunk) in programs.items():
        rate = options.batch / best[name]
        print(f"{name:34} {rate:8.1f} images/s  {one / best[name]:5.2f}x  {trunk.steps:3} blocks and heads")
    with tempfile.TemporaryDirectory() as folder:
        for text in ("lora(rank=2)", "lora(rank=4)", "dora(rank=2)", "ia3", "prompts", "parallel(width=4)"):
            model = nnx.clone(first)
            add_adapters(model, text)
            file = save_adapters(model, Path(folder) / "adapter.safetensors")
            print(f"{text:34} {file.stat().st_size / 1e3:8.1f} kB")


if __name__ == "__main__":
    main()
