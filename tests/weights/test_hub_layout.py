import pytest

from transfer_jax.models import Preprocessing
from transfer_jax.weights.hub_layout import image_processor, is_hub_folder
from transfer_jax.weights.preprocessing_files import _transformers


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
        Preprocessing(
            image_size=96,
            crop_fraction=1.0,
            interpolation="bilinear",
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
        ),
    ],
)
def test_an_image_processor_describes_the_same_preprocessing(preprocessing):
    found = _transformers("file", image_processor(preprocessing))
    assert found is not None
    assert not found.problems
    fields = {"channel_order": "rgb", **found.fields}
    assert fields.pop("mean") == pytest.approx(preprocessing.mean, abs=1e-3)
    assert fields.pop("std") == pytest.approx(preprocessing.std, abs=1e-3)
    assert Preprocessing(mean=preprocessing.mean, std=preprocessing.std, **fields) == preprocessing


@pytest.mark.parametrize("content", ["", "[]", '{"model_type": "vit"}', '{"library_name": "timm"}'])
def test_other_folders_are_not_taken_for_a_model_of_this_package(tmp_path, content):
    assert not is_hub_folder(tmp_path)
    (tmp_path / "config.json").write_text(content)
    assert not is_hub_folder(tmp_path)
