"""Heads that read all blocks."""

import jax
import numpy as np
import pytest

from transfer_jax import Phase, Schedule, TrainConfig, create_model, fit
from transfer_jax.freezing.recipes import head2toe, lp_ft
from transfer_jax.models.flat_arrays import split
from transfer_jax.runs.predict import predict_dataset
from transfer_jax.weights.export import export_model, targets
from transfer_jax.weights.saved_model import SavedModel

pytestmark = pytest.mark.usefixtures("toy")
NETWORKS = ("toy", "vit_nano_patch8_32")
KERNEL = "head/classifier/kernel"


def config_of(folder, network: str, schedule: Schedule, **changes) -> TrainConfig:
    settings = {"model": network, "weights": "none", "batch_size": 12, "taps": True, **changes}
    return TrainConfig(images=str(folder), schedule=schedule, **settings)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_features_are_the_pooled_outputs_of_all_blocks(network):
    model, plain = (create_model(network, 3, taps=taps, drop_path=0.1) for taps in (True, False))
    model.eval()
    plain.eval()
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    x, rows = images, []
    for name in plain.backbone.block_names:
        x = jax.jit(getattr(plain.backbone, name))(x)
        pooled = np.asarray(x, np.float64)
        pooled = pooled.mean(tuple(range(1, pooled.ndim - 1)))
        rows.append(pooled / np.linalg.norm(pooled, axis=-1, keepdims=True))
    found = jax.jit(lambda x: model.backbone(x))(images)
    np.testing.assert_allclose(found, np.concatenate(rows, -1), rtol=2e-3, atol=2e-5)
    assert model.backbone.features == found.shape[-1]
    inside, last = plain.backbone.block_names[1], plain.backbone.block_names[-1]
    np.testing.assert_array_equal(model.backbone(images, stop=inside), plain.backbone(images, stop=inside))
    assert model.backbone(found, start=last) is found
    with pytest.raises(ValueError, match="lack the outputs of the blocks before it"):
        model.backbone(model.backbone(images, stop=inside), start=inside)


@pytest.mark.parametrize("network", NETWORKS)
def test_head2toe_keeps_a_share_of_the_features(image_folder, toy_images, tmp_path, network):
    result = fit(config_of(image_folder, network, head2toe(0.1, 1e-3, epochs=4)), tmp_path)
    assert {phase.boundary for phase in result.phases} == {"pre_logits"}
    saved, model = SavedModel.load(tmp_path)
    kernel = np.asarray(split(model)[1][KERNEL])
    used = (kernel != 0).any(1)
    assert used.sum() == round(0.1 * len(kernel))
    assert saved.taps
    assert predict_dataset(tmp_path, toy_images).shape == (48, 3)
    if network != "toy":  # which no other library has
        library = targets(network)[0]
        with pytest.raises(
            ValueError, match=rf"reads all blocks \(taps\), which is not supported in {library}"
        ):
            export_model(tmp_path, library, tmp_path / "out.safetensors")
    assert export_model(tmp_path, "stablehlo", tmp_path / "out.stablehlo").file.stat().st_size > 1000


def test_blocks_below_such_a_head_train_from_images(image_folder, tmp_path):
    schedule = lp_ft(train="top(1)", head_epochs=1, epochs=1)
    result = fit(config_of(image_folder, NETWORKS[1], schedule), tmp_path)
    assert [phase.boundary for phase in result.phases] == ["pre_logits", None]
    phase = Phase(name="top", train="top(1)", epochs=1, learning_rate=0.1, cache="require")
    with pytest.raises(ValueError, match=r"'top' requires a cache, but its head reads all blocks \(taps\)"):
        fit(config_of(image_folder, NETWORKS[1], Schedule((phase,))), tmp_path / "other")


def test_only_a_head_that_trains_can_choose(image_folder, tmp_path):
    phase = Phase(name="bias", train="role('bias')", epochs=1, learning_rate=0.1, keep=0.5)
    with pytest.raises(ValueError, match="'bias': group_lasso and keep select inputs"):
        fit(config_of(image_folder, NETWORKS[1], Schedule((phase,))), tmp_path)
