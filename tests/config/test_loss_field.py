import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from transfer_jax.config import TrainConfig
from transfer_jax.config.loss_field import loss_function
from transfer_jax.tasks import SingleLabel

LOGITS = jnp.log(jnp.array([[0.2, 0.8], [0.5, 0.5]]))
TARGETS = jnp.array([[1.0, 0.0], [0.25, 0.75]])


def squared(logits, targets):
    return jnp.square(jax.nn.softmax(logits) - targets).sum(-1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("cross_entropy", [-np.log(0.2), np.log(2)]),
        ("optax.losses.poly_loss_cross_entropy(epsilon=1.0)", [-np.log(0.2) + 0.8, np.log(2) + 0.5]),
        (squared, [2 * 0.64, 2 * 0.0625]),
        (f"{__name__}:squared", [2 * 0.64, 2 * 0.0625]),
    ],
)
def test_losses_by_hand(given, expected):
    config = TrainConfig(images="folder", loss=given)
    np.testing.assert_allclose(
        loss_function(config.loss, SingleLabel(("a", "b")))(LOGITS, TARGETS), expected, rtol=1e-5
    )
    again = TrainConfig.from_json(config.to_json())
    assert again == config
    assert again.to_json() == config.to_json()


def test_a_loss_of_optax_is_stored_by_name():
    config = TrainConfig(images="folder", loss=optax.safe_softmax_cross_entropy)
    assert config.loss == "optax.safe_softmax_cross_entropy"
    assert config.objects == ()


@pytest.mark.parametrize("given", ["crossentropy", 3, lambda logits: logits, "optax.l2_loss"])
def test_invalid_losses_raise(given):
    with pytest.raises(ValueError, match=r"loss must be one of 'auto', 'cross_entropy', .*, a name of Optax"):
        TrainConfig(images="folder", loss=given)


@pytest.mark.parametrize(
    "given", ["optax.sigmoid_focal_loss", lambda logits, targets: (logits * targets).sum()]
)
def test_losses_of_other_shapes_raise(given):
    config = TrainConfig(images="folder", loss=given)
    with pytest.raises(
        ValueError, match=r"must return the loss of each example, \(4,\) for outputs \(4, 3\), but"
    ):
        loss_function(config.loss, SingleLabel(("a", "b", "c")))
