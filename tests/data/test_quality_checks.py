import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from transfer_jax.data import Finding, ImageDataset, ImageScan, find_problems
from transfer_jax.data.quality_checks import find_problems_in_sample


def problems(
    counts: dict[str, int],
    *,
    pairs: Sequence[tuple[int, int]] = (),
    held_out: Sequence[int] = (),
    image_size: int = 224,
    **seen: Any,
) -> dict[str, Finding]:
    """Returns the problems of a dataset by kind; images have 300 x 300 pixels unless `seen` differs."""
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
            "dark": np.zeros(total, bool),
            "paged": np.zeros(total, bool),
            "kinds": np.ones(total, np.int32),
            "bad": np.zeros(total, bool),
            "pairs": np.array(pairs, np.int32).reshape(-1, 2),
            **seen,
        }
    )
    aside = np.isin(np.arange(total), np.array(held_out, int))
    found = find_problems(dataset, survey, ~aside, aside, image_size)
    json.dumps([finding.to_json() for finding in found])
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}


def test_good_dataset_has_no_problems():
    assert problems({"cat": 60, "dog": 50}, held_out=[0, 70]) == {}


def test_nearly_black_images():
    found = problems({"cat": 60, "dog": 50}, dark=np.isin(np.arange(110), [3, 80]))
    assert found["dark"].text == "nearly black: 2 images of 110, such as 3.png"
    assert "16-bit files" in found["dark"].advice
    assert found["dark"].examples == (("3.png",), ("80.png",))
    assert "dark" in problems({"cat": 60, "dog": 50}, dark=np.arange(110) == 4)


@pytest.mark.parametrize(("dogs", "end"), [(2, "a.png: damaged"), (3, "without a readable image: 'dog'")])
def test_classes_without_a_readable_image(dogs, end):
    bad = np.isin(np.arange(63), [5, *range(60, 60 + dogs)])
    found = problems({"cat": 60, "dog": 3}, bad=bad, reasons=("a.png: damaged",) * (1 + dogs))
    assert found["bad"].text.startswith(f"{1 + dogs} images of 63 cannot be read: a.png: damaged")
    assert found["bad"].text.endswith(end)


def test_files_with_several_images():
    found = problems({"cat": 60, "dog": 50}, paged=np.arange(110) == 7)
    assert found["pages"].text == (
        "only the first frame or page is used: 1 image of 110 with more, such as 7.png"
    )


def test_validation_images_with_training_duplicates():
    found = problems({"cat": 60, "dog": 50}, held_out=[0, 1, 2, 70], pairs=[(0, 5), (1, 2), (5, 9), (70, 71)])
    assert found["leak"].text.startswith(
        "2 of 4 validation images (50.0%) have a near duplicate among the training"
    )
    assert "0.png and 5.png" in found["leak"].text
    assert "--keep-together" in found["leak"].advice
    assert found["leak"].examples == (("0.png", "5.png"), ("70.png", "71.png"))
    assert found["copies"].figures == {"images": 4, "groups": 3, "largest": 3}
    assert "two_labels" not in found
    assert "leak" not in problems({"cat": 60, "dog": 50}, held_out=[0, 1], pairs=[(0, 1), (5, 9)])


@pytest.mark.parametrize(
    ("pairs", "advice"),
    [
        ([], "add images of them"),
        ([(60, 61), (61, 62)], "add other images of 'dog': all that it has are near duplicates"),
    ],
)
def test_classes_without_validation_images(pairs, advice):
    found = problems({"cat": 60, "dog": 3}, held_out=[0, 1], pairs=pairs)["unevaluated"]
    assert found.text.startswith("1 class without validation images ('dog'), of 2 in all: trained, but in no")
    assert found.advice.startswith(advice)
    assert found.figures == {"classes": 1}
    assert found.text.endswith("with 'cat' alone in them, scores mean nothing")
    of_three = problems({"cat": 60, "dog": 3, "emu": 50}, held_out=[0, 70])["unevaluated"]
    assert of_three.text.endswith("trained, but in no score")
    assert "unevaluated" not in problems({"cat": 60, "dog": 3})  # The images are not split.


def test_copy_of_a_copy_is_a_leak():
    found = problems({"cat": 60, "dog": 50}, held_out=[0, 1], pairs=[(0, 1), (1, 9)])
    assert found["leak"].figures["images"] == 2


def test_duplicates_with_two_labels():
    found = problems({"cat": 60, "dog": 50}, pairs=[(3, 4), (5, 80)])["two_labels"]
    assert (
        found.text == "1 pair of near duplicates with two labels, such as 5.png and 80.png: 'cat' and 'dog'"
    )


@pytest.mark.parametrize(
    ("counts", "text", "advice"),
    [
        (
            {"cat": 90, "dog": 30},
            "3.0 to 1: 90 of 'cat', 30 of 'dog'; predicting 'cat' for all images is correct for 75%",
            "use the balanced",
        ),
        ({"cat": 950, "dog": 50}, "19.0 to 1", "an accuracy of 95% is meaningless here"),
    ],
)
def test_uneven_classes(counts, text, advice):
    found = problems(counts)["uneven"]
    assert text in found.text
    assert found.advice.startswith(advice)
    assert "--class-weights balanced" in found.advice


def test_classes_with_few_images():
    assert problems({"cat": 9, "dog": 20})["few"].text == "1 class of 2 have fewer than 10 images: 'cat' 9"
    assert problems({"cat": 10, "dog": 20}).keys() == set()


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
def test_similar_class_names(names, expected):
    found = problems(dict.fromkeys(names, 20))
    text = found["names"].text.removeprefix("class names are nearly identical: ") if found else None
    assert text == expected


def test_files_that_identify_their_class():
    kinds = np.repeat([1, 0], [20, 30]).astype(np.int32)
    found = problems({"cat": 20, "dog": 30}, kinds=kinds)["shortcut"]
    assert "the format of the files identifies classes: all images of 'cat' are PNG" in found.text
    assert "and 0% of the other images; the same holds for 1 more" in found.text
    kinds[25:35] = 1
    assert problems({"cat": 20, "dog": 30}, kinds=kinds) == {}
    sizes = np.repeat([[300, 300], [640, 480]], [20, 30], axis=0)
    found = problems({"cat": 20, "dog": 30}, sizes=sizes)
    assert "all images of 'cat' are 300 x 300 pixels" in found["shortcut"].text
    gray = np.repeat([True, False], [20, 30])
    found = problems({"cat": 20, "dog": 30}, gray=gray)
    assert "all images of 'cat' are gray" in found["shortcut"].text
    assert found["mixed"].text == "some images are gray (20 of 50), the others in colour"


def test_small_images():
    sizes = np.full((50, 2), (64, 48), np.int32)
    found = problems({"cat": 20, "dog": 30}, sizes=sizes)["small"]
    assert (
        "half of them have 48 pixels or fewer. The network takes 224, so they are enlarged 4.7 times"
        in found.text
    )
    assert problems({"cat": 20, "dog": 30}, sizes=sizes, image_size=96 - 1) == {}


def test_bad_images():
    bad = np.arange(50) == 7
    found = problems({"cat": 20, "dog": 30}, bad=bad, reasons=("7.png: the file is empty",))["bad"]
    assert found.text == "1 image of 50 cannot be read: 7.png: the file is empty"
    assert "--on-bad-image skip" in found.advice
    assert str(found) == f"{found.text}. To do: {found.advice}"


def test_problems_in_a_sample():
    labels = np.repeat(np.arange(3, dtype=np.int32), (60, 50, 4))
    dataset = ImageDataset(
        read=lambda i: b"",
        labels=labels,
        names=[f"{i}.png" for i in range(114)],
        class_names=("cat", "dog", "emu"),
        fingerprint="none",
        notes=("a note",),
    )
    rows = np.array([3, 5, 70, 111])
    scan = ImageScan(
        sizes=np.full((4, 2), 300, np.int32),
        gray=np.zeros(4, bool),
        dark=np.array([False, False, True, False]),
        paged=np.zeros(4, bool),
        kinds=np.ones(4, np.int32),
        bad=np.zeros(4, bool),
        pairs=np.array([[0, 1]], np.int32),
    )
    held_out = np.array([True, False, False, False])
    found = {f.kind: f for f in find_problems_in_sample(dataset, rows, scan, ~held_out, held_out, 224)}
    assert found["dark"].text == "in a sample of 4 images: nearly black: 1 image of 4, such as 70.png"
    assert found["leak"].examples == (("3.png", "5.png"),)
    assert found["few"].text.startswith("1 class of 3 have fewer than 10 images: 'emu' 4")
    assert found["source"].text == "a note"
    assert "unevaluated" not in found
