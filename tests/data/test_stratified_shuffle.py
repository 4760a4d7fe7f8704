import numpy as np
import pytest
from sklearn.model_selection import StratifiedShuffleSplit

from transfer_jax.data.stratified_shuffle import stratified_shuffle


@pytest.mark.parametrize("seed", [0, 1, 12345])
@pytest.mark.parametrize(("items", "groups", "fraction"), [(40, 4, 0.25), (333, 7, 0.1), (1000, 90, 0.37)])
def test_equals_the_split_of_scikit_learn(items, groups, fraction, seed):
    rng = np.random.default_rng(items)
    names = np.concatenate([np.repeat(np.arange(groups), 2), rng.geometric(0.2, items).clip(1, groups) - 1])
    names = rng.permutation(names)
    splitter = StratifiedShuffleSplit(n_splits=1, test_size=fraction, random_state=seed)
    expected = next(splitter.split(np.zeros(len(names)), names))
    found = stratified_shuffle(names, len(expected[1]), seed)
    for part, known in zip(found, expected, strict=True):
        np.testing.assert_array_equal(part, np.sort(known))
