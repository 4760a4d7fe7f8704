import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from transfer_jax.data import Finding, ImageDataset, ImageScan, findings_of


def look(
    counts: dict[str, int],
    *,
    pairs: Sequence[tuple[int, int]] = (),
    held_out: Sequence[int] = (),
    image_size: int = 224,
    **seen: Any,
) -> dict[str, Finding]:
    """The findings about images of some classes, by kind; each has 300 x 300 pixels unless `seen` says so."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), [*counts.values()])
    total = len(labels)
    dataset = ImageDataset(
        read=lambda i: b"",
        labels=labels,
        names=[f"{i}.png" for i in range(total)],
        class_names=tuple(counts),
        fingerprint="none",
    )
    survey = ImageScan(
        **{
            "sizes": np.full((total, 2), 300, np.int32),
            "gray": np.zeros(total, bool),
            "kinds": np.ones(total, np.int32),
            "bad": np.zeros(total, bool),
            "pairs": np.array(pairs, np.int32).reshape(-1, 2),
            **seen,
        }
    )
    aside = np.isin(np.arange(total), np.array(held_out, int))
    found = findings_of(dataset, survey, ~aside, aside, image_size)
    json.dumps([finding.to_json() for finding in found])
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}


def test_nothing_is_found_where_nothing_is_wrong():
    assert look({"cat": 60, "dog": 50}, held_out=[0, 70]) == {}


def test_held_out_images_that_were_trained_on():
    found = look({"cat": 60, "dog": 50}, held_out=[0, 1, 2, 70], pairs=[(0, 5), (1, 2), (5, 9), (70, 71)])
    assert found["leak"].text.startswith(
        "2 of 4 held-out images (50.0%) have a near duplicate among the training"
    )
    assert "0.png and 5.png" in found["leak"].text
    assert "--keep-together" in found["leak"].advice
    assert found["leak"].examples == (("0.png", "5.png"), ("70.png", "71.png"))
    assert found["copies"].figures == {"images": 4, "groups": 3, "largest": 3}
    assert "two_labels" not in found
    assert "leak" not in look({"cat": 60, "dog": 50}, held_out=[0, 1], pairs=[(0, 1), (5, 9)])


def test_a_copy_of_a_copy_leaks_too():
    assert (
        look({"cat": 60, "dog": 50}, held_out=[0, 1], pairs=[(0, 1), (1, 9)])["leak"].figures["images"] == 2
    )


def test_one_image_under_two_labels():
    found = look({"cat": 60, "dog": 50}, pairs=[(3, 4), (5, 80)])["two_labels"]
    assert (
        found.text == "1 pair of near duplicates with two labels, such as 5.png and 80.png: 'cat' and 'dog'"
    )


@pytest.mark.parametrize(
    ("counts", "text", "advice"),
    [
        (
            {"cat": 90, "dog": 30},
            "3.0 to 1: 90 of 'cat', 30 of 'dog'; always to say 'cat' is right for 75%",
            "go by the",
        ),
        ({"cat": 950, "dog": 50}, "19.0 to 1", "an accuracy of 95% means nothing here"),
    ],
)
def test_uneven_classes(counts, text, advice):
    found = look(counts)["uneven"]
    assert text in found.text
    assert found.advice.startswith(advice)
    assert "--class-weights balanced" in found.advice


def test_classes_of_few_images():
    assert look({"cat": 9, "dog": 20})["few"].text == "1 class of 2 have fewer than 10 images: 'cat' 9"
    assert look({"cat": 10, "dog": 20}).keys() == set()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Cat", "cat "), "'Cat' and 'cat '"),
        (("cat", "cats"), "'cat' and 'cats'"),
        (("boxes", "box"), "'box' and 'boxes'"),
        (("berries", "berry"), "'berry' and 'berries'"),
        (("résumé", "resume"), "'résumé' and 'resume'"),
        (("hot dog", "hot_dog", "hotdogs"), "'hot dog' and 'hot_dog' and 'hotdogs'"),
        (("glass", "gla"), None),
        (("pin", "pine"), None),
        (("c", "c++"), None),
        (("1", "10"), None),
    ],
)
def test_names_that_are_nearly_the_same(names, expected):
    found = look(dict.fromkeys(names, 20))
    assert (
        found["names"].text.removeprefix("class names are nearly the same: ") if found else None
    ) == expected


def test_files_that_give_their_class_away():
    kinds = np.repeat([1, 0], [20, 30]).astype(np.int32)
    found = look({"cat": 20, "dog": 30}, kinds=kinds)["shortcut"]
    assert (
        "the format of the files tells classes apart: all of 'cat' are PNG, and 0% of the others"
        in found.text
    )
    assert "so with 1 more" in found.text
    kinds[25:35] = 1
    assert look({"cat": 20, "dog": 30}, kinds=kinds) == {}
    sizes = np.repeat([[300, 300], [640, 480]], [20, 30], axis=0)
    assert "all of 'cat' are 300 x 300 pixels" in look({"cat": 20, "dog": 30}, sizes=sizes)["shortcut"].text
    gray = np.repeat([True, False], [20, 30])
    found = look({"cat": 20, "dog": 30}, gray=gray)
    assert "all of 'cat' are gray" in found["shortcut"].text
    assert found["mixed"].text == "20 images of 50 are gray, the others in colour"


def test_small_images():
    sizes = np.full((50, 2), (64, 48), np.int32)
    found = look({"cat": 20, "dog": 30}, sizes=sizes)["small"]
    assert (
        "half of them have 48 pixels or fewer, the network takes 224, so they are enlarged 4.7 times"
        in found.text
    )
    assert look({"cat": 20, "dog": 30}, sizes=sizes, image_size=96 - 1) == {}


def test_bad_images():
    bad = np.arange(50) == 7
    found = look({"cat": 20, "dog": 30}, bad=bad, reasons=("7.png: the file is empty",))["bad"]
    assert found.text == "1 image of 50 cannot be read: 7.png: the file is empty"
    assert "--on-bad-image skip" in found.advice
    assert str(found) == f"{found.text}. To do: {found.advice}"
