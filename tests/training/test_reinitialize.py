import dataclasses

import numpy as np
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.freezing.selectors import SelectorError
from transfer_jax.models.flat_arrays import split, update
from transfer_jax.models.paths import block_of
from transfer_jax.planning.network import check_config
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.training.reinitialize import chosen_blocks, reinitialize


def arrays_of(model) -> dict:
    _, params, stats = split(model)
    return {path: np.asarray(array) for path, array in {**params, **stats}.items()}


def test_chosen_blocks_are_those_of_the_fresh_model(make_toy):
    model, fresh = make_toy(seed=0), make_toy(seed=1)
    before, other = arrays_of(model), arrays_of(fresh)
    before["backbone/stem/norm/mean"] = before["backbone/stem/norm/mean"] + 5
    update(model, {"backbone/stem/norm/mean": before["backbone/stem/norm/mean"]})
    reinitialize(model, fresh, "from_('blocks.11') & ~head")
    after = arrays_of(model)
    for path, array in after.items():
        same = other if block_of(path) in ("blocks.11", "top") else before
        np.testing.assert_array_equal(array, same[path])
    assert (after["backbone/stem/norm/mean"] == 5).all()


def test_whole_blocks_are_chosen(make_toy):
    assert chosen_blocks(make_toy(), "role('norm')") == {"stem", "blocks.1", "blocks.11", "top"}
    assert chosen_blocks(make_toy(), "from_('top')") == {"top"}
    with pytest.raises(SelectorError, match=r"blocks\.2"):
        chosen_blocks(make_toy(), "from_('blocks.2')")


def test_a_run_starts_with_random_blocks_of_its_seed(image_folder, tmp_path):
    config = TrainConfig(
        images=str(image_folder), model="efficientnet_lite_tiny", weights="none", reinitialize="from_('top')"
    )
    plain, random, again = (
        load_network(resolve(dataclasses.replace(config, reinitialize=what)), tmp_path).arrays
        for what in ("", "from_('top')", "from_('top')")
    )
    # Without weights all blocks are random values of the seed.
    for path in plain:
        np.testing.assert_array_equal(random[path], again[path])
        np.testing.assert_array_equal(random[path], plain[path])
    with pytest.raises(SelectorError):
        check_config(dataclasses.replace(config, reinitialize="from_('nothing')"))
