"""A user's model between two boundaries, from its traced function."""

import functools
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transfer_jax.freezing.freeze_check import combined_hash
from transfer_jax.freezing.function_split import Split, split_frozen
from transfer_jax.freezing.function_split.same_features import split_at, value_hashes
from transfer_jax.freezing.trees import FROZEN
from transfer_jax.own_models.own_model import OwnModel

Arrays = Mapping[str, Any]
_INPUT = "input."
"""The beginning of the name of a feature that is an input of the model itself."""


class TracedModel:
    """A model whose features at the end of a group are the narrowest arrays behind it.

    They are those of `split_frozen` with all groups up to that one frozen, and all others in training mode.
    The features at the last group are the model's outputs.

    Args:
        model: The model.

    Attributes:
        model: The model.
        groups: Its groups, input side first.
    """

    def __init__(self, model: OwnModel) -> None:
        self.model = model
        self.groups = tuple(dict.fromkeys(model.groups.values()))
        self._splits: dict[Any, Split] = {}

    def outputs(
        self, params: Arrays, state: Arrays, inputs: Any, key: Any, training: frozenset[str], norm: str
    ) -> tuple[jax.Array, Arrays]:
        """Returns the outputs `(batch, features)` and the new state.

        Args:
            params: The parameters by path.
            state: The running statistics by path.
            inputs: An array if the model has one input, otherwise a dictionary.
            key: The random key; None for none.
            training: The groups in training mode.
            norm: See `Phase.norm`.
        """
        return self.model.modes(training, norm)(params, state, self._batch(inputs), key)

    def features(self, params: Arrays, state: Arrays, inputs: Any, group: str) -> Any:
        """Returns the features at the end of a group: an array, or a dictionary of several.

        Args:
            params: The parameters by path.
            state: The running statistics by path.
            inputs: As for `outputs`.
            group: The group.
        """
        batch = self._batch(inputs)
        if group == self.groups[-1]:
            return self.outputs(params, state, inputs, None, frozenset(), "frozen")[0]
        split = self._split(group, params, state, batch)
        found = dict(split.prefix(params, batch, state)) if split.features else {}
        found |= {f"{_INPUT}{name}": batch[name] for name in split.inputs}
        return next(iter(found.values())) if [*found] == ["features"] else found

    def outputs_from(
        self,
        group: str,
        params: Arrays,
        state: Arrays,
        features: Any,
        key: Any,
        training: frozenset[str],
        norm: str,
    ) -> tuple[jax.Array, Arrays]:
        """Returns the outputs and the new state from the features at the end of a group.

        Args:
            group: The group.
            params: The parameters by path.
            state: The running statistics by path.
            features: The result of `features`.
            key: The random key; None for none.
            training: The groups in training mode; none of them is below the features.
            norm: See `Phase.norm`.
        """
        if group == self.groups[-1]:
            return features, state
        found = dict(features) if isinstance(features, Mapping) else {"features": features}
        inputs = {name.removeprefix(_INPUT): found.pop(name) for name in [*found] if name.startswith(_INPUT)}
        batch = _like_inputs(self.model.batch, params)
        split = self._version(group, params, state, batch, key, training, norm)
        # Caches may store another precision than the operations return.
        found = {name: x.astype(split.features[name].dtype) for name, x in found.items()}
        return split.suffix(params, params, state, found, inputs, key)

    def program_hash(self, group: str, params: Arrays, state: Arrays) -> str:
        """Returns a hash of the operations that compute the features at the end of a group.

        Args:
            group: The group.
            params: The parameters by path, or their shapes.
            state: The running statistics by path, or their shapes.
        """
        if group != self.groups[-1]:
            split = self._split(group, params, state, self.model.batch)
            hashes = value_hashes(split.program)
            return combined_hash({str(index): hashes[each] for index, each in enumerate(split.variables)})
        function = self.model.modes(frozenset(), "frozen")
        shapes = _shapes(params), _shapes(state), self.model.batch, None
        text = re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(function)(*shapes)))
        return hashlib.sha256(text.encode()).hexdigest()

    def activations(self, params: Arrays, state: Arrays, x: Any, start: str | None, group: str) -> Any:
        """Returns features at the end of a group, from the inputs or from features at a lower group."""
        if start is None:
            return self.features(params, state, x, group)
        if group == self.groups[-1]:
            return self.outputs_from(start, params, state, x, None, frozenset(), "frozen")[0]

        def function(params: Arrays, state: Arrays, batch: Any, key: Any) -> Any:
            features = batch["features"]
            return self.outputs_from(start, params, state, features, key, frozenset(), "frozen")

        batch = {"features": x}
        labels = self._labels(group)
        split = split_frozen(function, params, labels, batch, state=state, flops_per_byte=math.inf)
        return split.prefix(params, batch, state) if split.features else x

    def _batch(self, inputs: Any) -> dict[str, Any]:
        return dict(inputs) if isinstance(inputs, Mapping) else {self.model.inputs[0]: inputs}

    def _labels(self, group: str) -> dict[str, str]:
        frozen = self.groups[: self.groups.index(group) + 1]
        return {path: FROZEN if each in frozen else each for path, each in self.model.groups.items()}

    def _split(self, group: str, params: Arrays, state: Arrays, batch: Arrays) -> Split:
        """Returns the split at the end of a group, all groups above it in training mode."""
        above = self.groups[self.groups.index(group) + 1 :]
        where = (group, *_dtypes(params), *_dtypes(batch))
        if where not in self._splits:
            self._splits[where] = split_frozen(
                self.model.modes(frozenset(above), "train"),
                _shapes(params),
                self._labels(group),
                {name: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype) for name, x in batch.items()},
                key=_key(),
                state=_shapes(state),
                flops_per_byte=math.inf,
            )
        return self._splits[where]

    def _version(
        self,
        group: str,
        params: Arrays,
        state: Arrays,
        batch: Arrays,
        key: Any,
        training: frozenset[str],
        norm: str,
    ) -> Split:
        """Returns the split at the same features with other groups in training mode."""
        split = self._split(group, params, state, batch)
        where = (group, training, norm, key is None, *_dtypes(params), *_dtypes(batch))
        if where not in self._splits:
            function = self.model.modes(training, norm)
            self._splits[where] = split_at(split, function, key=None if key is None else _key())
        return self._splits[where]


def _like_inputs(batch: Arrays, params: Arrays) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of inputs whose precision is that of the parameters, as in a forward pass."""
    dtype = next((x.dtype for x in params.values() if jnp.issubdtype(x.dtype, jnp.floating)), jnp.float32)
    return {
        name: jax.ShapeDtypeStruct(x.shape, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)
        for name, x in batch.items()
    }


@functools.cache
def _key() -> jax.Array:
    return jax.eval_shape(lambda: jax.random.key(0))


def _shapes(arrays: Arrays) -> dict[str, jax.ShapeDtypeStruct]:
    return {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in arrays.items()}


def _dtypes(arrays: Arrays) -> tuple[str, ...]:
    return tuple(str(x.dtype) for x in arrays.values())
