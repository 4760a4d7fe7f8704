import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from transfer_jax.data.bit_depth import is_deep, to_8_bits
from transfer_jax.data.decode import BadImageError, decode_image, summarize_image

SMIN, SMAX, MAX, SAMPLE_FORMAT = 340, 341, 281, 339


def tiff(encode, values: np.ndarray, tags: dict[int, float], photometric: int | None = None) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info.tagtype[tag] = 11 if isinstance(value, float) else 3
        info[tag] = value
    if photometric is not None:
        info[262] = photometric
    return encode(values, "TIFF", tiffinfo=info)


def gray(encoded: bytes) -> list[int]:
    """The decoded first row; the summary must accept the image, too."""
    assert summarize_image(encoded, "x").gray
    pixels = decode_image(encoded, "x")
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


@pytest.mark.parametrize("most", [65535, 4095, 1023, 300])
@pytest.mark.parametrize("plain", [True, False])
def test_pgm_is_scaled_by_its_largest_value(most, plain):
    values = np.array([0, most // 3, most // 2, most])
    if plain:
        encoded = b"P2\n4 1\n%d\n" % most + b" ".join(b"%d" % value for value in values)
    else:
        encoded = b"P5\n4 1\n%d\n" % most + values.astype(">u2").tobytes()
    assert gray(encoded) == np.rint(values / most * 255).tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_12_bits_in_16_have_no_scale_of_their_own(encode, kind):
    assert gray(encode(np.array([[0, 2048, 4095]], np.uint16), kind)) == [0, 8, 16]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({MAX: 4095}, [0, 128, 255]),
        ({SMIN: 1000, SMAX: 3000}, [0, 134, 255]),
        ({SMAX: 4095.0}, [0, 128, 255]),
        ({MAX: 3127}, [0, 8, 16]),  # The largest value of some image, not a depth.
        ({MAX: 1023}, [0, 8, 16]),  # Other values are above it.
        ({SMIN: 3000, SMAX: 1000}, [0, 8, 16]),
        ({SMAX: float("nan")}, [0, 8, 16]),
    ],
)
def test_stated_range_of_16_bits(encode, tags, expected):
    assert gray(tiff(encode, np.array([[0, 2050, 4095]], np.uint16), tags)) == expected


@pytest.mark.parametrize(
    ("values", "tags", "expected"),
    [
        ([0.0, 0.25, 1.0], {}, [0, 64, 255]),
        ([0.0, 0.0, 0.0], {}, [0, 0, 0]),
        ([-1.0, 0.0, 1.0], {SMIN: -1.0, SMAX: 1.0}, [0, 128, 255]),
        ([-500.0, 100.0, 3000.0], {SMIN: 0.0, SMAX: 200.0}, [0, 128, 255]),
        ([0.0, 0.5, 1.0], {SMAX: 2.0}, [0, 64, 128]),
        ([0.0, 2.5, 251.0], {MAX: 255}, [0, 2, 251]),
    ],
)
def test_floating_point_values(encode, values, tags, expected):
    assert gray(tiff(encode, np.array([values], np.float32), tags)) == expected


def test_integers_with_a_stated_range(encode):
    values = np.array([[-1024, 0, 1024]], np.int32)
    assert gray(tiff(encode, values, {SMIN: -1024.0, SMAX: 1024.0})) == [0, 128, 255]


def test_signed_bytes_need_a_stated_range(encode):
    values = np.array([[-100, 0, 100]], np.int8).view(np.uint8)
    encoded = tiff(encode, values, {SAMPLE_FORMAT: 2, SMIN: -100.0, SMAX: 100.0})
    assert gray(encoded) == [0, 128, 255]
    with pytest.raises(BadImageError, match=r"^x: signed 8-bit integer pixels from -100 to 100 have"):
        decode_image(tiff(encode, values, {SAMPLE_FORMAT: 2}), "x")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 0.5, 1.01]], np.float32), "floating-point pixels from 0 to 1.01 have no agreed range"),
        (np.array([[-0.1, 1.0]], np.float32), "floating-point pixels from -0.1 to 1 have no agreed range"),
        (np.array([[0, 255]], np.int32), "signed 32-bit integer pixels from 0 to 255 have no agreed range"),
        (np.array([[0, np.nan]], np.float32), "some pixels are not finite numbers"),
        (np.array([[0, np.inf]], np.float32), "some pixels are not finite numbers"),
    ],
)
@pytest.mark.parametrize("how", [decode_image, summarize_image])
def test_values_without_an_agreed_range_raise(encode, values, reason, how):
    with pytest.raises(BadImageError, match=f"^x: {reason}.* convert the image to 8 "):
        how(encode(values, "TIFF"), "x")


def test_zero_is_white(encode):
    assert gray(tiff(encode, np.array([[0, 65535]], np.uint16), {}, photometric=0)) == [255, 0]


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "CMYK"])
def test_images_of_8_bits_are_not_deep(mode):
    assert not is_deep(Image.new(mode, (1, 1)))


def test_a_converted_image_is_gray():
    assert to_8_bits(Image.fromarray(np.array([[65535]], np.uint16))).mode == "L"
