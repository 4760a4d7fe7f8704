"""Fine-tunes an NNX network of somebody else in five steps, with a loop of one's own.

python nnx_loop.py WORKDIR
"""

# pyright: reportOptionalMemberAccess=false

import sys

import grain
import jax
import numpy as np
import optax
from nnx_network import measurements, pretrained
from safetensors.flax import save_file

import transfer_jax as tj
from transfer_jax.freezing import leaves_by_path

PHASES = [("head", 3e-2, 4, 0), ("top(1)", 1e-3, 3, 1), ("top(3)", 1e-4, 2, 3)]


def loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


def main(workdir):
    data, model = measurements(), pretrained()
    example, key = jax.tree.map(lambda *arrays: np.stack(arrays), *data[:8]), jax.random.key(0)
    model.eval()
    function, params, model_state = tj.nnx_function(model, "x")
    blocks = tj.blocks_by_depth(function, params, example, state=model_state)
    checkpoints = tj.LoopCheckpoints(f"{workdir}/checkpoints", params)
    state, frozen = None, params
    for phase, (selector, rate, epochs, top) in checkpoints.remaining(PHASES):
        for layer in model.layers[len(model.layers) - top :]:
            layer.train()  # BatchNorm and dropout of trainable blocks only.
        function, _, _ = tj.nnx_function(model, "x")
        labels = tj.labels(params, selector, blocks)
        optimizer = tj.multi_transform(dict.fromkeys(blocks.values(), optax.adamw(rate)), labels)
        state, frozen = tj.next_phase(state, frozen, labels, optimizer, model_state=model_state)
        state, frozen = checkpoints.restore(state, frozen, phase)
        split = tj.split_frozen(function, params, labels, example, key=key, state=model_state)
        cache = tj.cache_features(split, frozen, data, f"{workdir}/features", state=state.model_state)
        rows = grain.MapDataset.range(len(cache)).seed(phase).shuffle().repeat(epochs).batch(16)
        batches = checkpoints.restore_data(iter(rows.map(cache.gather).to_iter_dataset()), phase)
        step = jax.jit(tj.make_train_step(loss, optimizer, split), donate_argnums=0)
        with tj.frozen_unchanged(frozen):
            for batch in batches:
                state, _ = step(state, frozen, batch, batch)
                checkpoints.save(state, frozen, phase, batches)
    save_file(leaves_by_path(tj.combine(state.trainable, frozen)), f"{workdir}/final.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
