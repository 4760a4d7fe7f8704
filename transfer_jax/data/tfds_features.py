"""The features of a tensorflow-datasets dataset: which one is the image, and which one the label."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from transfer_jax.data.example_fields import LABEL_NAMES, MASK_WORDS
from transfer_jax.data.image_files import abridged


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A feature that is the image or the label of an example.

    Attributes:
        name: The key of the feature; `OUTER/INNER` for a feature in a dictionary.
        feature: The `tfds.features.FeatureConnector`.
        others: The names of the other features that could be chosen.
    """

    name: str
    feature: Any
    others: tuple[str, ...]


def flat_features(features: Any) -> dict[str, Any]:
    """Returns the features of an example by name, with `OUTER/INNER` for those in dictionaries."""
    import tensorflow_datasets as tfds

    if not isinstance(features, tfds.features.FeaturesDict):
        return {}
    flat = {}
    for key, feature in features.items():
        inner = flat_features(feature)
        flat.update({f"{key}/{name}": each for name, each in inner.items()} if inner else {key: feature})
    return dict(sorted(flat.items()))


def choose_image(info: Any, wanted: str | None = None) -> Chosen:
    """Returns the feature with the images.

    It is the one that `supervised_keys` names, or `image`, or the only one that is no mask.

    Args:
        info: The `tfds.core.DatasetInfo`.
        wanted: The name of the feature; None chooses one.

    Raises:
        ValueError: If there is none, or several that are equally likely; the message lists them.
    """
    import tensorflow_datasets as tfds

    flat = flat_features(info.features)
    images = {
        name: feature
        for name, feature in flat.items()
        if isinstance(feature, tfds.features.Image) and feature.np_dtype in (np.uint8, np.uint16)
    } or {
        name: feature
        for name, feature in flat.items()
        if isinstance(feature, tfds.features.Tensor)
        and feature.np_dtype == np.uint8
        and _is_picture(feature.shape)
    }
    pictures = [
        name
        for name, feature in images.items()
        if not isinstance(feature, tfds.features.LabeledImage)
        and not any(word in name.lower() for word in MASK_WORDS)
    ]
    choices = (
        _supervised(info, 0),
        "image",
        _only(_leaves(images, ("image",))),
        _only(pictures),
        _only(images),
    )
    return _chosen(info, "image", wanted, choices, images)


def choose_label(info: Any, wanted: str | None = None, task: str = "auto") -> Chosen:
    """Returns the feature with the labels.

    It is the one that `supervised_keys` names, or `label`, or the only class label. Numbers and texts without
    class names are labels if they are named so. For several labels it is a sequence of class labels or an
    array of 0 and 1; for regression, a number or an array of numbers.

    Args:
        info: The `tfds.core.DatasetInfo`.
        wanted: The name of the feature; None chooses one.
        task: The task; `auto` takes a feature with one class, or else one of any task.

    Raises:
        ValueError: If there is none, or several that are equally likely; the message lists them.
    """
    import tensorflow_datasets as tfds

    flat = flat_features(info.features)
    by_task = {
        kind: {name: feature for name, feature in flat.items() if kind in feature_tasks(feature)}
        for kind in ("single_label", "multi_label", "regression")
    }
    if task == "auto":
        if wanted is not None and wanted in flat:
            task = next(iter(feature_tasks(flat[wanted])), task)
        else:
            task = next((kind for kind, features in by_task.items() if features), task)
    values = by_task["single_label" if task in ("auto", "ordinal") else task]
    classes = {
        name: feature
        for name, feature in values.items()
        if isinstance(getattr(feature, "feature", feature), tfds.features.ClassLabel)
    }
    if wanted is not None or _supervised(info, 1) in values:
        likely = values
    elif task in ("multi_label", "regression"):
        likely = classes or values
    else:
        likely = classes or {name: values[name] for name in _leaves(values, LABEL_NAMES)}
    choices = (_supervised(info, 1), "label", _only(_leaves(likely, ("label",))), _only(likely))
    return _chosen(info, "label", wanted, choices, likely, {**classes, **values})


def _chosen(
    info: Any,
    kind: str,
    wanted: str | None,
    choices: Iterable[str | None],
    likely: Mapping[str, Any],
    possible: Mapping[str, Any] | None = None,
) -> Chosen:
    """Returns the wanted feature, or the first choice that exists."""
    possible = likely if possible is None else possible
    if wanted is not None and wanted not in possible:
        raise ValueError(
            f"{info.full_name} has no feature {wanted!r} with one {kind} for each example; "
            f"choose one of {abridged([*possible], 20)}"
        )
    name = wanted or next((choice for choice in choices if choice in likely), None)
    if name is None and not possible:
        raise ValueError(
            f"{info.full_name} has no {kind} for each example; its features are "
            f"{abridged([*flat_features(info.features)], 20)}"
        )
    if name is None:
        example = next(iter(likely or possible))
        raise ValueError(
            f"the {kind} of {info.full_name} is one of {abridged([*(likely or possible)], 20)}; choose it, "
            f"for example with tfds:{info.full_name.rsplit('/', 1)[0]}?{kind}={example}"
        )
    others = tuple(other for other in likely if other != name)
    return Chosen(name, possible[name], others)


def _supervised(info: Any, position: int) -> str | None:
    """Returns the input or the target of the pair `supervised_keys`, if it is one feature."""
    keys = info.supervised_keys
    key = keys[position] if isinstance(keys, tuple) and len(keys) > position else None
    return key if isinstance(key, str) else None


def _is_picture(shape: Any) -> bool:
    return len(shape) == 3 and shape[-1] in (1, 3)


def feature_tasks(feature: Any) -> tuple[str, ...]:
    """Returns the tasks whose targets a feature may be, the most likely one first."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Text | tfds.features.ClassLabel):
        return ("single_label",)
    if isinstance(feature, tfds.features.Sequence):
        return ("multi_label",) if isinstance(feature.feature, tfds.features.ClassLabel) else ()
    # Images, videos and boxes are tensors, too.
    if type(feature) not in (tfds.features.Tensor, tfds.features.Scalar) or len(feature.shape) > 1:
        return ()
    kind = np.dtype(feature.np_dtype).kind
    if kind == "f":
        return ("regression",)
    if kind not in "biuO":
        return ()
    if feature.shape:
        return {"b": ("multi_label",), "O": ()}.get(kind, ("multi_label", "regression"))
    return ("single_label", "regression") if kind in "iu" else ("single_label",)


def _leaves(names: Iterable[str], wanted: tuple[str, ...]) -> list[str]:
    return [name for name in names if name.rsplit("/", 1)[-1].lower() in wanted]


def _only(names: Iterable[str]) -> str | None:
    """Returns the name if there is one only."""
    found = [*names]
    return found[0] if len(found) == 1 else None
