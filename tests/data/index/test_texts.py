import os

import numpy as np
import pytest

from transfer_jax.data.index import TextColumn
from transfer_jax.data.index.texts import encode_texts

TEXTS = ["a", "", "é", os.fsdecode(b"bad\xff.png"), "last"]


@pytest.fixture
def column() -> TextColumn:
    content, lengths = encode_texts(TEXTS)
    return TextColumn(content, np.concatenate(([0], np.cumsum(lengths))).astype(np.uint32))


def test_texts_are_those_that_were_encoded(column: TextColumn) -> None:
    assert [*column] == TEXTS
    assert (column[-1], column[1:3], len(column)) == ("last", ["", "é"], 5)
    with pytest.raises(IndexError, match="out of range for 5"):
        column[5]


def test_part_has_consecutive_texts(column: TextColumn) -> None:
    part = column.part(2, 4)
    assert [*part] == TEXTS[2:4]
    content, lengths = part.arrays()
    assert content.tobytes() == "é".encode() + b"bad\xff.png"
    assert lengths.tolist() == [2, 8]
