import pytest

from transfer_jax.counted import counted


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (1234, ("image",), "1,234 images"),
        (1, ("class",), "1 class"),
        (2, ("class",), "2 classes"),
        (1, ("quantity", "quantities"), "1 quantity"),
        (3, ("image has", "images have"), "3 images have"),
    ],
)
def test_a_noun_agrees_with_its_number(count, nouns, text):
    assert counted(count, *nouns) == text
