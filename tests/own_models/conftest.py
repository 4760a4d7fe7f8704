import numpy as np
import pytest
from networks_of_others import MAKERS


@pytest.fixture(params=MAKERS, scope="module")
def model(request):
    return MAKERS[request.param]()


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
