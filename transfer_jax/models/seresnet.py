"""SE-ResNet, ECA-ResNet and ResNet-RS, with the names of timm.

Sources: Hu et al. 2017, arXiv:1709.01507 (`se…`); Wang et al. 2019, arXiv:1910.03151 (`eca…`); Bello et al.
2021, arXiv:2103.07579 (`…rs…`); `…aa…` average pixels in place of strides. The letters `d` and `t` are those
of `resnet.py`.
"""

from typing import Any

from transfer_jax.models import resnet
from transfer_jax.models.family import IMAGENET_MEAN, IMAGENET_STD, Family, Variant
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.models.resnet import DEEP, DEPTHS, TIERED, WIDE, Shape, torch_layer


def _plain(attention: str, size: int, **options: Any) -> Shape:
    return Shape(DEPTHS[size], size not in (18, 34), attention=attention, **options)


def _d(
    attention: str, depths: tuple[int, int, int, int], stem: tuple[int, ...] = DEEP, **options: Any
) -> Shape:
    return Shape(depths, attention=attention, stem=stem, average=True, **options)


def _rs(*depths: int) -> Shape:
    return _d("se", depths, squeeze=0.25, learned_pool=True)  # pyright: ignore[reportArgumentType]


_X4: dict[str, Any] = {"groups": 32, "group_width": 4}
_X8: dict[str, Any] = {"groups": 32, "group_width": 8}
# shape, image size in pixels, crop fraction
_SIZES = {
    "seresnet50": (_plain("se", 50), 224, 0.95),
    "seresnet152d": (_d("se", DEPTHS[152]), 256, 1.0),
    "seresnext26d_32x4d": (_d("se", DEPTHS[26], **_X4), 224, 0.875),
    "seresnext26t_32x4d": (_d("se", DEPTHS[26], TIERED, **_X4), 224, 0.875),
    "seresnext50_32x4d": (_plain("se", 50, **_X4), 224, 0.875),
    "seresnext101_32x4d": (_plain("se", 101, **_X4), 224, 0.875),
    "seresnext101_64x4d": (_plain("se", 101, groups=64, group_width=4), 224, 0.875),
    "seresnext101_32x8d": (_plain("se", 101, **_X8), 224, 0.95),
    "seresnext101d_32x8d": (_d("se", DEPTHS[101], **_X8), 224, 0.95),
    "ecaresnet26t": (_d("eca", DEPTHS[26], TIERED), 256, 0.95),
    "ecaresnetlight": (Shape((1, 1, 11, 3), attention="eca", average=True), 224, 0.875),
    "ecaresnet50d": (_d("eca", DEPTHS[50]), 224, 0.875),
    "ecaresnet50t": (_d("eca", DEPTHS[50], TIERED), 256, 0.95),
    "ecaresnet101d": (_d("eca", DEPTHS[101]), 224, 0.875),
    "ecaresnet269d": (_d("eca", (3, 30, 48, 8)), 320, 1.0),
    "resnetrs50": (_rs(3, 4, 6, 3), 160, 0.91),
    "resnetrs101": (_rs(3, 4, 23, 3), 192, 0.94),
    "resnetrs152": (_rs(3, 8, 36, 3), 256, 1.0),
    "resnetrs200": (_rs(3, 24, 36, 3), 256, 1.0),
    "resnetrs270": (_rs(4, 29, 53, 4), 256, 1.0),
    "resnetrs350": (_rs(4, 36, 72, 4), 288, 1.0),
    "resnetrs420": (_rs(4, 44, 87, 4), 320, 1.0),
    "seresnextaa101d_32x8d": (_d("se", DEPTHS[101], antialias=True, **_X8), 288, 1.0),
    "seresnextaa201d_32x8d": (_d("se", (3, 24, 36, 4), WIDE, antialias=True, **_X8), 384, 1.0),
}


def _variant(shape: Shape, size: int, crop: float) -> Variant:
    return Variant(
        shape=shape,
        preprocessing=Preprocessing(
            image_size=size, crop_fraction=crop, mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
    )


FAMILY = Family(
    name="seresnet",
    variants={name: _variant(*sizes) for name, sizes in _SIZES.items()},
    build=resnet.build,
    layer_names={"timm": torch_layer},
)
