"""Features of images at several depths of a network, computed in one pass."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from transfer_jax.data import ImageDataset
from transfer_jax.data.pipeline import listed_batches
from transfer_jax.features import FeatureCache
from transfer_jax.freezing.function_split.depths import chosen_blocks, split_at_depths
from transfer_jax.models.backbone import PRE_LOGITS, Classifier
from transfer_jax.models.flat_arrays import split
from transfer_jax.models.flax_functions import ModelFunction
from transfer_jax.models.preprocessing import Preprocessing
from transfer_jax.report.progress import Progress, Silent
from transfer_jax.runs.feature_inputs import Inputs, dataset_inputs, example_inputs, open_images
from transfer_jax.runs.feature_models import open_model
from transfer_jax.runs.feature_passes import BackboneDepths, FeaturePass, Pool

_UNUSED = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))
"""Stands for the preprocessing of examples that are not images."""
_PRECISIONS = (None, "float32", "bfloat16", "float16")
_GIGABYTE = 1e9


@overload
def extract_features(
    model: Any,
    images: Any,
    at: Sequence[str] | str | None = None,
    *,
    batch_size: int = 32,
    pool: Pool = "mean",
    precision: str | None = None,
    preprocessing: Preprocessing | None = None,
    blocks: Sequence[str] | Mapping[str, str] | str | None = None,
    directory: None = None,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]: ...


@overload
def extract_features(
    model: Any,
    images: Any,
    at: Sequence[str] | str | None = None,
    *,
    batch_size: int = 32,
    pool: Pool = "mean",
    precision: str | None = None,
    preprocessing: Preprocessing | None = None,
    blocks: Sequence[str] | Mapping[str, str] | str | None = None,
    directory: str | os.PathLike[str],
    progress: Progress | None = None,
) -> FeatureCache: ...


def extract_features(
    model: Any,
    images: Any,
    at: Sequence[str] | str | None = None,
    *,
    batch_size: int = 32,
    pool: Pool = "mean",
    precision: str | None = None,
    preprocessing: Preprocessing | None = None,
    blocks: Sequence[str] | Mapping[str, str] | str | None = None,
    directory: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, np.ndarray] | FeatureCache:
    """Computes the features of images at one or several depths of a network, in one pass.

    The pass is one compiled program. It computes once what several depths share, and nothing behind the last
    of them, such as the head. The network is in inference mode.

    Example:
        >>> features = extract_features("efficientnet_lite0", "photos/", at=["blocks.10", "pre_logits"])
        >>> features["pre_logits"].shape  # (images, 1280)

    Args:
        model: The name of a network, with its published weights; the workdir of a finished run, or its
            `Result`; a `Classifier`; or any other model: the result of `own_model`, an `nnx.Module`, a Linen
            module with its variables as `(module, variables)`, or `(function, params, state)` as
            `nnx_function` and `linen_function` return them.
        images: A folder or another source that `load_dataset` takes, files, an `ImageDataset`, or uint8
            pixels `(n, height, width, 3)`. For models of others also a tree of arrays with the examples on
            axis 0, or anything with `__len__` and `__getitem__` whose items are trees of arrays; a single
            array is the entry `image` of their batch.
        at: Names of blocks. In our networks the features are the outputs of blocks
            (`model.backbone.block_names`). In other models they are the narrowest arrays behind a block and
            below the next one; `blocks_by_depth` returns the names. `all` takes all blocks. None takes the
            features that the head reads: `pre_logits`, the outputs of an `own_model`, or those behind the
            last block but one.
        batch_size: Images per batch.
        pool: `mean` averages over all axes between the examples and the last one, such as pixels or tokens.
            None keeps them. A function of arrays `(batch, …)` does anything else, such as
            `lambda x: x.mean((2, 3))` for channels on axis 1.
        precision: `float32`, `bfloat16` or `float16`, for parameters and activations, in models of others
            also for the state; None takes float32 for our networks, and leaves others as they are.
        preprocessing: Resizing and normalization of the images. None takes that of the weights; for models
            of others, their arrays are used as they are.
        blocks: For models of others, the grouping of parameters to blocks, as for `labels`.
        directory: A folder for the features. A later call with the same network, depths and images reads
            them. None keeps them in memory.
        progress: Receives the number of images; None reports nothing.

    Returns:
        The features by block in the order of the blocks, NumPy arrays `(n, …)`; several arrays behind one
        block are `BLOCK/0`, `BLOCK/1` …. With `directory`, a `FeatureCache` of them.

    Raises:
        ValueError: If a block, the model or an option is unknown, or the features need more memory than is
            free.
    """
    if precision not in _PRECISIONS:
        raise ValueError(f"precision must be one of {_PRECISIONS}, got {precision!r}")
    if isinstance(pool, str) and pool != "mean":
        raise ValueError(f"pool must be 'mean', None or a function, got {pool!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    opened = open_model(model)
    preprocessing = preprocessing or opened.preprocessing
    if isinstance(opened.network, Classifier):
        if preprocessing is None:
            raise ValueError(
                "the preprocessing of this classifier is unknown; pass preprocessing="
                "transfer_jax.weights.find_spec(NAME).preprocessing"
            )
        inputs = _dataset_inputs(images, preprocessing)
        planned = _backbone_pass(opened.network, preprocessing, at, pool, precision, inputs)
    else:
        network, inputs = _with_inputs(opened.network, images, preprocessing)
        if opened.blocks is not None:
            blocks = opened.blocks
            at = [*blocks.values()][-1] if at is None else at
        planned = _function_pass(network, at, pool, precision, inputs, blocks)
    if directory is not None:
        return _cached(planned, inputs, directory, batch_size, progress)
    return _in_memory(planned, inputs, batch_size, progress or Silent())


def _dataset_inputs(images: Any, preprocessing: Preprocessing) -> Inputs:
    dataset = open_images(images)
    if dataset is None:
        raise ValueError(
            "images must be a folder, files, an ImageDataset or uint8 pixels (n, height, width, 3), got "
            f"{type(images).__name__}; `from_examples` makes a dataset of other examples"
        )
    return dataset_inputs(dataset, preprocessing)


def _with_inputs(
    network: ModelFunction, images: Any, preprocessing: Preprocessing | None
) -> tuple[ModelFunction, Inputs]:
    """Returns the inputs of a function, and the function, which normalizes images if that is asked for."""
    if isinstance(images, ImageDataset) and images.inputs is not None:
        return network, dataset_inputs(images, _UNUSED)
    is_files = isinstance(images, ImageDataset | str | os.PathLike)
    if preprocessing is None:
        if is_files:
            raise ValueError(
                "the size and the normalization of the images of this model are unknown; pass "
                "preprocessing=Preprocessing(image_size=…, mean=…, std=…), or arrays"
            )
        return network, example_inputs(images)
    dataset = open_images(images)
    if dataset is None:
        raise ValueError(f"preprocessing is for images, got {type(images).__name__}; leave it out")

    def normalized(params: Any, state: Any, batch: Any, key: Any) -> Any:
        image = preprocessing.normalize(batch["image"])
        return network.function(params, state, {**batch, "image": image}, key)

    return network._replace(function=normalized), dataset_inputs(dataset, preprocessing)


def _backbone_pass(
    network: Classifier,
    preprocessing: Preprocessing,
    at: Any,
    pool: Pool,
    precision: str | None,
    inputs: Inputs,
) -> FeaturePass:
    blocks = network.backbone.block_names
    names = tuple(chosen_blocks(PRE_LOGITS if at is None else at, blocks))
    graphdef, params, stats = split(network)
    shapes, dtype = inputs.shapes(2), jnp.dtype(precision or "float32")
    depths = BackboneDepths(graphdef, blocks, names, preprocessing, dtype, pool, shapes)
    return FeaturePass(depths, {**params, **stats}, None, shapes, names, None)


def _function_pass(
    network: ModelFunction, at: Any, pool: Pool, precision: str | None, inputs: Inputs, blocks: Any
) -> FeaturePass:
    function, params, state = network
    if precision is not None:
        function = _cast_batches(function, precision)
        params, state = _cast(params, precision), _cast(state, precision)
    shapes = inputs.shapes(2)
    depths = split_at_depths(function, params, shapes, at, state=state, blocks=blocks)
    return FeaturePass(depths, params, state, shapes, depths.blocks, pool)


def _cast_batches(function: Any, precision: str) -> Any:
    return lambda params, state, batch, key: function(params, state, _cast(batch, precision), key)


def _cast(tree: Any, precision: str) -> Any:
    def cast(leaf: Any) -> Any:
        return jnp.asarray(leaf, precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def _in_memory(
    planned: FeaturePass, inputs: Inputs, batch_size: int, progress: Progress
) -> dict[str, np.ndarray]:
    """Computes all features into arrays."""
    _check_memory(planned, len(inputs))
    count, size = len(inputs), max(2, min(batch_size, len(inputs)))
    found = {
        name: np.empty((count, *each.shape), jnp.dtype(each.dtype)) for name, each in planned.features.items()
    }
    compute = jax.jit(planned.prefix)

    def store(first: int, computed: Mapping[str, jax.Array]) -> None:
        rows = min(size, count - first)
        for name, whole in found.items():
            whole[first : first + rows] = np.asarray(computed[name])[:rows]
        progress.advance(rows)

    progress.start("extracting features", count)
    lists = [np.minimum(np.arange(first, first + size), count - 1) for first in range(0, count, size)]
    running = None
    for number, batch in enumerate(listed_batches(lambda rows: {"batch": inputs.fetch(rows)}, lists)):
        computed = compute(planned.params, batch["batch"], planned.state)
        if running is not None:  # The batch before is copied while this one is computed.
            store(*running)
        running = (number * size, computed)
    if running is not None:
        store(*running)
    progress.finish()
    return found


def _check_memory(planned: FeaturePass, count: int) -> None:
    needed = count * sum(each.bytes for each in planned.features.values())
    free = psutil.virtual_memory().available
    if needed > free:
        largest = max(planned.features.items(), key=lambda item: item[1].bytes)[0]
        raise ValueError(
            f"the features of {count:,} examples need {needed / _GIGABYTE:.1f} GB, and "
            f"{free / _GIGABYTE:.1f} GB are free; pool them (pool='mean'), choose fewer depths (the "
            f"largest is at {largest!r}), or name a folder with directory="
        )


def _cached(
    planned: FeaturePass, inputs: Inputs, directory: Any, batch_size: int, progress: Progress | None
) -> FeatureCache:
    from transfer_jax.features.cache_features import cache_features

    return cache_features(
        planned,
        planned.params,
        inputs,
        directory,
        state=planned.state,
        batch_size=batch_size,
        keep=(),
        threads=2,
        progress=progress,
    )
