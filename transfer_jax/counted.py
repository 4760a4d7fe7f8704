"""Numbers with their nouns, in the singular or the plural."""


def counted(count: float, noun: str, nouns: str = "") -> str:
    """Returns a whole number with its noun: `1 image`, `2,000 images`, `1 class`, `2 classes`.

    Args:
        count: The number.
        noun: The noun for one, with its verb where needed, such as `image has`.
        nouns: The noun for other numbers, such as `images have`; `noun` with `s`, or `es` after an `s`, by
            default.
    """
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,.0f} {noun if count == 1 else nouns or noun + ending}"
