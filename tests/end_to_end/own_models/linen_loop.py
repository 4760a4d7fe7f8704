"""Fine-tunes a Linen network of somebody else in five steps, with a loop of one's own.

python linen_loop.py WORKDIR
"""

# pyright: reportOptionalMemberAccess=false

import sys

import grain
import jax
import optax
from linen_network import photographs, pretrained
from safetensors.flax import save_file

import transfer_jax as tj
from transfer_jax.freezing import leaves_by_path

PHASES = [("head", 3e-2, 4), ("top(2)", 1e-3, 3), ("blocks('BatchNorm_2', 'Conv_2')", 1e-3, 2)]


def loss(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()


def main(workdir):
    data, (network, variables) = photographs(), pretrained()
    function, params, model_state = tj.linen_function(network, variables, "image", train=True)
    example, key = jax.tree.map(lambda array: array[:8], data), jax.random.key(0)
    blocks = tj.blocks_by_depth(function, params, example, state=model_state, key=key)
    checkpoints = tj.LoopCheckpoints(f"{workdir}/checkpoints", params)
    state, frozen = None, params
    for phase, (selector, rate, epochs) in checkpoints.remaining(PHASES):
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
                if state.step % 2 == 0:
                    checkpoints.save(state, frozen, phase, batches)
        checkpoints.save(state, frozen, phase, batches)
    save_file(leaves_by_path(tj.combine(state.trainable, frozen)), f"{workdir}/final.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
