"""The largest batch that fits."""

import subprocess
import sys

import pytest

from transfer_jax.planning.batch_search import largest_that_fits
from transfer_jax.planning.pod_cost import PodCost


def cost(images: int, memory: float, limit: float) -> PodCost:
    fixed = {"name": "a", "train": "all_()", "boundary": None, "chips": 4}
    return PodCost(**fixed, images=images, memory=memory, fits=memory <= limit)


@pytest.mark.parametrize(
    ("fixed", "per_image", "largest", "most_compiled"),
    [
        (100, 1, 512, 3),
        (100, 2, 256, 3),
        (100, 6, 128, 3),
        (100, 10, 64, 3),
        (100, 20, 32, 3),
        (100, 50, 16, 3),
        (100, 100, 8, 3),
        (100, 800, 1, 5),
        (0.1, 0.01, 4096, 3),
        (2000, 1, None, 5),
    ],
)
def test_the_largest_power_of_two_is_found_in_a_few_compilations(fixed, per_image, largest, most_compiled):
    compiled = []

    def cost_of(images: int) -> PodCost:
        compiled.append(images)
        return cost(images, fixed + per_image * images, 1000)

    found = largest_that_fits(cost_of, 1000)
    assert len(compiled) == len(set(compiled)) <= most_compiled
    assert (found.images if found.fits else None) == largest


@pytest.mark.parametrize(("most", "largest"), [(1, 1), (13, 8), (16, 16), (63, 32), (300, 256)])
def test_there_are_only_so_many_images(most, largest):
    assert largest_that_fits(lambda images: cost(images, images, 1e6), 1e6, most).images == largest


def test_memory_that_grows_faster_than_the_line():
    def cost_of(images: int) -> PodCost:
        return cost(images, (10 if images < 100 else 30) * images, 10_000)

    assert largest_that_fits(cost_of, 10_000).images == 256


@pytest.mark.extended
def test_the_command_compares_the_ways_to_recompute(image_folder, tmp_path):
    command = ["plan", "--images", str(image_folder), "--model", "vit_nano_patch8_32", "--weights", "none"]
    command += ["--topology", "v5e:2x2", "--largest-batch", "--trains", "head"]
    done = subprocess.run(
        [sys.executable, "-m", "transfer_jax", *command], capture_output=True, text=True, check=True
    )
    table = done.stdout[done.stdout.index("The largest batch") :]
    rows = [line.split() for line in table.splitlines() if line.strip().startswith("head")]
    assert [row[-5] for row in rows] == ["none", "dots", "block"]
    assert [row[-4] for row in rows] == ["8"] * 3  # Of 36 training images, on four chips.
