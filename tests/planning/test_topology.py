"""Memory and time of a step on a chip of a pod, from the TPU compiler."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from transfer_jax.planning.chips import CHIPS

PROGRAM = """
import dataclasses, json, sys
import numpy as np
from transfer_jax import Phase, Schedule, TrainConfig
from transfer_jax.data import from_arrays
from transfer_jax.report.progress import Silent
from transfer_jax.planning.topology import pod_costs, without_tpu
from transfer_jax.runs.resolve import resolve

without_tpu()
topology, images, model, options, *trains = sys.argv[1:]
dataset = from_arrays(np.zeros((40_000, 1, 1), np.uint8), np.arange(40_000) % 2, ("a", "b"))
phases = tuple(Phase(name=each, train=each, epochs=1, learning_rate=0.1, cache="off") for each in trains)
config = TrainConfig(
    images="none", model=model, weights="none", schedule=Schedule(phases), **json.loads(options)
)
costs = pod_costs(resolve(config, dataset=dataset), topology, Silent(), images=int(images))
print(json.dumps([dataclasses.asdict(cost) for cost in costs]))
"""


def costs(
    topology: str, *trains: str, images: int = 8, model="efficientnet_lite_tiny", **options
) -> list[dict]:
    """Compiles in a new process, which has not used any device."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, topology, str(images), model, json.dumps(options), *trains],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.extended
def test_slices_exchange_only_the_gradients_of_their_part():
    """The chips of a slice divide the gradients among them before they send them to the other slice."""
    (one,), (two,) = (costs("v5e:2x2", "head", fsdp=4, slices=slices) for slices in (1, 2))
    assert (one["slices"], one["chips"], two["slices"], two["chips"]) == (1, 4, 2, 8)
    assert one["exchanged_slices"] == 0
    whole = 4 * (1280 * 2 + 2)  # Bytes of the head's gradients; transfers are padded to 512 bytes.
    assert whole / 4 <= two["exchanged_slices"] < whole
    assert two["network_seconds"] == two["exchanged_slices"] / CHIPS["v5e"].network
    for name in ("flops", "memory"):
        assert two[name] == pytest.approx(one[name], rel=0.1), name


@pytest.mark.extended
def test_each_chip_does_the_same_work_on_a_larger_pod():
    """Weak scaling. A phase that trains the head exchanges its gradients and the metrics, nothing else."""
    topologies = ("v5e:4x4", "v5e:16x16")  # With shard_update, each chip updates less on a larger pod.
    few, many = (costs(topology, "head", "all_()", shard_update=False) for topology in topologies)
    assert [cost["chips"] for cost in (few[0], many[0])] == [16, 256]
    for one, other in zip(few, many, strict=True):
        for name in ("flops", "hbm_bytes", "compulsory_bytes", "memory"):
            assert other[name] == pytest.approx(one[name], rel=0.02), name
    head, everything = few
    parameters = 1280 * 2 + 2
    assert head["exchanged"] == 2 * 15 / 16 * 4 * (parameters + 2)
    assert everything["exchanged"] > 20 * head["exchanged"]
    assert everything["flops"] > 2 * head["flops"]
    assert head["compute_seconds"] == head["flops"] / CHIPS["v5e"].flops
    assert head["fits"]


@pytest.mark.extended
def test_fsdp_shards_the_arguments():
    every = [{"shard_update": False}, {"shard_update": True}, {"fsdp": 4}]
    found = [costs("v5e:2x2", "all_()", **options)[0]["arguments"] for options in every]
    whole, updated, spread = (each - 8 * 224 * 224 * 3 for each in found)
    assert whole / spread > 3
    assert whole / updated > 1.5


@pytest.mark.parametrize("topology", ["v5e", "v9:2x2", "v5e:2by2"])
def test_an_unknown_topology(topology, tmp_path: Path):
    from transfer_jax.planning.topology import topology_devices

    with pytest.raises(ValueError, match="topology must be like v5e:16x16, with one of v5e, v5p, v6e, got"):
        topology_devices(topology, 1)
