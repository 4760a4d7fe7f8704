"""Views of an image whose predictions are averaged (test-time augmentation)."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np

from transfer_jax.config import Views


def views_of(batch: Mapping[str, Any], views: Views) -> Iterator[Mapping[str, Any]]:
    """Yields a batch once for each view of its images, the images themselves first.

    Source: Krizhevsky et al. 2012, section 4.1 (mirror images); predictions are averaged over the views.

    Args:
        batch: A batch with `image`, `(batch, height, width, channels)`.
        views: The views. `dihedral` is for images without an up, such as those of microscopes.

    Raises:
        ValueError: If there are no such views, or the batch has no images.
    """
    if views not in get_args(Views):
        raise ValueError(f"the views must be one of {', '.join(get_args(Views))}, got {views!r}")
    if views == "none":
        yield batch
        return
    if "image" not in batch:
        raise ValueError(f"views={views!r} needs images; the inputs are {', '.join(batch)}")
    images = np.asarray(batch["image"])
    for turns in range(4 if views == "dihedral" else 1):
        turned = np.rot90(images, turns, axes=(1, 2))
        for view in (turned, turned[:, :, ::-1]):
            yield {**batch, "image": np.ascontiguousarray(view)}
