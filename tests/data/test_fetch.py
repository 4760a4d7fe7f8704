import dataclasses

import numpy as np
import pytest

from transfer_jax.data import (
    Augmentation,
    BadImageError,
    augmented_image_fetch,
    eval_transform,
    from_elpv,
    image_fetch,
    ordered_batches,
    shuffled_batches,
    view_fetch,
)

LIVELY = Augmentation(flip_vertical=True, rotate90=True, color_jitter=0.3, randaugment_ops=1)


def test_image_fetch_entries(patches, preprocessing):
    batch = image_fetch(patches, preprocessing)(np.array([7, 2, 2]))
    assert {key: (value.dtype, value.shape) for key, value in batch.items()} == {
        "image": (np.uint8, (3, 32, 32, 3)),
        "label": (np.int32, (3,)),
        "index": (np.int32, (3,)),
    }
    assert batch["label"].tolist() == [1, 0, 0]
    assert batch["index"].tolist() == [7, 2, 2]
    np.testing.assert_array_equal(batch["image"][0], eval_transform(patches.image(7), preprocessing))
    np.testing.assert_array_equal(batch["image"][1], batch["image"][2])


def test_augmentation_differs_within_and_between_batches(patches, preprocessing):
    fetch = augmented_image_fetch(patches, preprocessing, LIVELY)
    rng = np.random.default_rng(0)
    batches = [fetch(np.array([5, 5, 5]), np.arange(3), rng) for _ in range(3)]
    assert len({image.tobytes() for batch in batches for image in batch["image"]}) == 9
    again = fetch(np.array([5, 5, 5]), np.arange(3), np.random.default_rng(0))
    np.testing.assert_array_equal(again["image"], batches[0]["image"])
    assert again["label"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("threads", [1, 3])
def test_elpv_batches_resume_in_the_middle_of_an_epoch(elpv_data_dir, preprocessing, threads):
    dataset = from_elpv(data_dir=elpv_data_dir).subset(range(0, 2624, 100))  # 27 images

    def batches(threads: int):
        fetch = augmented_image_fetch(dataset, preprocessing, LIVELY)
        return iter(shuffled_batches(fetch, len(dataset), batch_size=8, seed=5, threads=threads))

    whole = batches(threads=2)
    expected = [next(whole) for _ in range(8)]
    stopped, resumed = batches(threads), batches(threads)
    for _ in range(4):  # An epoch is three.
        next(stopped)
    resumed.set_state(stopped.get_state())
    for batch in expected[4:]:
        again = next(resumed)
        for key, value in batch.items():
            np.testing.assert_array_equal(again[key], value)


def test_views_are_reproducible(patches, preprocessing):
    fetch = view_fetch(patches, preprocessing, LIVELY, seed=9)
    rows = np.array([3, 43, 83, 4])
    batch = fetch(rows)
    assert batch["index"].tolist() == [3, 3, 3, 4]
    assert batch["label"].tolist() == [1, 1, 1, 0]
    assert len({image.tobytes() for image in batch["image"]}) == 4
    for row, image in zip(rows, batch["image"], strict=True):  # The company makes no difference.
        np.testing.assert_array_equal(fetch(np.array([row]))["image"][0], image)
    same = view_fetch(patches, preprocessing, LIVELY, seed=9)(rows)["image"]
    np.testing.assert_array_equal(same, batch["image"])
    other = view_fetch(patches, preprocessing, LIVELY, seed=10)(rows)["image"]
    assert all((a != b).any() for a, b in zip(other, batch["image"], strict=True))


def test_views_in_order_cover_every_image(patches, preprocessing):
    fetch = view_fetch(patches, preprocessing, LIVELY, seed=0)
    batches = list(ordered_batches(fetch, 2 * len(patches), batch_size=32))
    index = np.concatenate([batch["index"][batch["mask"]] for batch in batches])
    assert index.tolist() == [*range(40), *range(40)]


def test_bad_image_raises_in_threads(cat, encode, preprocessing, patches):
    contents = [encode(cat[:40, :40])] * 12
    contents[9] = contents[9][:200]
    dataset = dataclasses.replace(
        patches.subset(range(12)), read=contents.__getitem__, names=[f"cats/{i}.png" for i in range(12)]
    )
    training = augmented_image_fetch(dataset, preprocessing, Augmentation())
    with pytest.raises(BadImageError, match=r"^cats/9\.png: cannot be decoded"):
        for _ in zip(range(3), shuffled_batches(training, 12, batch_size=4, seed=0), strict=False):
            pass
    with pytest.raises(BadImageError, match=r"^cats/9\.png: .*; --on-bad-image skip leaves bad images out"):
        list(ordered_batches(image_fetch(dataset, preprocessing), 12, batch_size=4))


@pytest.mark.parametrize("threads", [0, 3])
def test_bad_images_are_collected(cat, encode, preprocessing, patches, threads):
    contents = [encode(cat[:40, :40])] * 10
    contents[4], contents[9] = b"", b"no image"
    dataset = dataclasses.replace(patches.subset(range(10)), read=contents.__getitem__)
    bad: dict[int, BadImageError] = {}
    fetch = image_fetch(dataset, preprocessing, bad)
    batches = [*ordered_batches(fetch, 10, batch_size=4, threads=threads)]
    assert {index: str(error).split(" (")[0] for index, error in bad.items()} == {
        4: "image 4: the file is empty",
        9: "image 9: not an image of a known format",
    }
    images = np.concatenate([batch["image"] for batch in batches])[:10]
    assert [index for index in range(10) if not images[index].any()] == [4, 9]
