import os
import sys

import numpy as np
import pytest

from transfer_jax.data import from_folder


def test_unicode_forms_of_a_name_are_one_class(tree):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    root = tree(f"train/{decomposed}/1.png", "train/b/1.png", f"val/{composed}/2.png", "val/b/1.png")
    dataset = from_folder(root)
    assert dataset.class_names == ("b", composed)
    assert dataset.labels.tolist() == [0, 1, 0, 1]
    assert dataset.names[1] == f"train/{decomposed}/1.png"
    assert dataset.notes == ()
    dataset = from_folder(tree(f"train/{composed}/3.png"))
    assert dataset.counts() == {"b": 2, composed: 3}
    assert dataset.notes == (
        r"folders read as one class, as their names have the same letters: "
        r"'cafe\u0301', 'caf\xe9'",
    )


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="names are UTF-8 there")
def test_names_that_are_not_utf_8(tree, cat):
    root = tree(b"a/\xe9.png", b"b\xe9/1.png", b"b\xe9/\xff.txt")
    dataset = from_folder(root)
    assert dataset.class_names == ("a", "b\\xe9")
    assert [os.fsencode(name) for name in dataset.names] == [b"a/\xe9.png", b"b\xe9/1.png"]
    np.testing.assert_array_equal(dataset.image(0), cat[:8, :8])
    (root / os.fsdecode(b"a/\xe9.png")).rename(root / "a" / "e.png")
    assert from_folder(root).fingerprint != dataset.fingerprint


def test_a_link_to_a_missing_class_folder_raises(tree):
    root = tree("a/1.png", "b/1.png")
    (root / "c").symlink_to("/mnt/nowhere")
    with pytest.raises(FileNotFoundError, match=r"'.*c' leads to '/mnt/nowhere', which does not exist"):
        from_folder(root)
