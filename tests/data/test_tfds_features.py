from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from transfer_jax.data.tfds_features import choose_image, choose_label, flat_features

IMAGE = tfds.features.Image(shape=(None, None, 3))
GRAY = tfds.features.Image(shape=(None, None, 1), dtype=np.uint16)
DEPTH = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)
MASK = tfds.features.LabeledImage(labels=3, shape=(None, None, 1))
PIXELS = tfds.features.Tensor(shape=(32, 32, 3), dtype=np.uint8)
CLASS = tfds.features.ClassLabel(names=["a", "b"])
TEXT = tfds.features.Text()
NUMBER = tfds.features.Scalar(np.int64)
FLOAT = tfds.features.Scalar(np.float32)
CLASSES = tfds.features.Sequence(CLASS)


def info(supervised: Any = None, **features: Any) -> Any:
    known = tfds.features.FeaturesDict(features)
    return SimpleNamespace(full_name="pets/big/1.0.0", features=known, supervised_keys=supervised)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"picture": IMAGE}, "picture"),
        ({"image": IMAGE, "right": IMAGE, "left": IMAGE}, "image"),
        ({"photo": IMAGE, "segmentation_mask": IMAGE}, "photo"),
        ({"photo": IMAGE, "parts": MASK}, "photo"),
        ({"photo": GRAY, "depth": DEPTH}, "photo"),
        ({"sample": {"image": IMAGE, "other": IMAGE}}, "sample/image"),
        ({"pixels": PIXELS, "embedding": FLOAT}, "pixels"),
        ({"left": IMAGE, "right": IMAGE, "supervised": ("right", "label")}, "right"),
        ({"image": IMAGE, "supervised": ("image", "mask"), "mask": MASK}, "image"),
    ],
)
def test_the_image(features, expected):
    chosen = choose_image(info(**features, label=CLASS))
    assert chosen.name == expected
    assert expected not in chosen.others


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"breed": CLASS}, "breed"),
        ({"label": CLASS, "coarse_label": CLASS}, "label"),
        ({"label": CLASS, "coarse_label": CLASS, "supervised": ("image", "coarse_label")}, "coarse_label"),
        ({"labels": CLASS, "id": NUMBER, "boxes": CLASSES}, "labels"),
        ({"about": {"label": CLASS, "breed": CLASS}}, "about/label"),
        ({"label": NUMBER, "id": NUMBER}, "label"),
        ({"category": TEXT, "caption": TEXT}, "category"),
        ({"age": NUMBER, "caption": TEXT, "supervised": ("image", "caption")}, "caption"),
        ({"breed": CLASS, "mask": MASK, "supervised": ("image", "mask")}, "breed"),
        ({"tags": CLASSES, "caption": DEPTH}, "tags"),
        ({"age": FLOAT}, "age"),
    ],
)
def test_the_label(features, expected):
    assert choose_label(info(**features, image=IMAGE)).name == expected


@pytest.mark.parametrize(
    ("choose", "features", "wanted", "message"),
    [
        (
            choose_image,
            {"left": IMAGE, "right": IMAGE},
            None,
            r"one of 'left', 'right'; .*tfds:pets/big\?image=left",
        ),
        (choose_image, {"left": IMAGE, "right": IMAGE}, "middle", "no feature 'middle' with one image"),
        (choose_image, {"depth": DEPTH}, None, "has no image for each example; its features are 'depth'"),
        (choose_label, {"breed": CLASS, "kind": CLASS}, None, r"one of 'breed', 'kind'; .*\?label=breed"),
        (choose_label, {"age": FLOAT, "size": FLOAT}, None, r"one of 'age', 'size'; .*\?label=age"),
        (choose_label, {"places": DEPTH}, None, "has no label for each example"),
        (choose_label, {"id": NUMBER, "name": TEXT}, None, r"one of 'id', 'name'"),
    ],
)
def test_an_unclear_choice_raises(choose, features, wanted, message):
    with pytest.raises(ValueError, match=message):
        choose(info(**features), wanted)


def test_a_choice_knows_the_others():
    known = info(image=IMAGE, right=IMAGE, breed=CLASS, label=CLASS)
    assert choose_image(known).others == ("right",)
    assert choose_label(known, "breed").others == ("label",)
    assert [*flat_features(known.features)] == ["breed", "image", "label", "right"]
