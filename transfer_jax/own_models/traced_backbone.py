"""A backbone made of a user's model."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from flax import nnx

from transfer_jax.models.backbone import PRE_LOGITS, Backbone
from transfer_jax.models.remat import rematerialized_function
from transfer_jax.own_models.array_paths import block_name, group_of_state, own_parts
from transfer_jax.own_models.own_model import OwnModel
from transfer_jax.own_models.traced_model import TracedModel


class _Arrays(nnx.Module):
    """A level of the paths of the arrays of a block."""


class TracedBackbone(Backbone):
    """A backbone whose blocks are the groups of parameters of a user's model.

    It runs the user's function, and finds the features at a boundary in its trace; see `TracedModel`.
    Features are an array, or a dictionary of arrays with examples on axis 0.

    Args:
        model: The model.
        traced: Its trace, which several backbones share.
        abstract: Whether it has shapes instead of arrays.
    """

    def __init__(self, model: OwnModel, traced: TracedModel, *, abstract: bool = False) -> None:
        layout = _Layout(model, traced.groups)
        super().__init__({name: _Arrays() for name in layout.blocks}, model.features)
        self.block_names = (*self.block_names, PRE_LOGITS)
        self.training: tuple[str, ...] = ()
        self.norm = "frozen"
        self._traced, self._layout = traced, layout
        for kind, paths, arrays in (
            (nnx.Param, layout.params, model.params),
            (nnx.BatchStat, layout.state, model.state),
        ):
            for path, parts in paths.items():
                x = arrays[path]
                module: Any = self
                for part in parts[:-1]:
                    if not hasattr(module, part):
                        setattr(module, part, _Arrays())
                    module = getattr(module, part)
                setattr(module, parts[-1], kind(jax.ShapeDtypeStruct(x.shape, x.dtype) if abstract else x))

    @property
    def inputs(self) -> Mapping[str, jax.ShapeDtypeStruct] | None:
        """Shapes of a batch of inputs that are not images, by name; None for images."""
        return self._traced.model.batch if self._traced.model.takes_arrays else None

    def __call__(
        self, x: Any, *, start: str | None = None, stop: str | None = None, rngs: nnx.Rngs | None = None
    ) -> Any:
        """Runs the model from `start` to `stop`; see `Backbone`."""
        self.span(start, stop)
        params, state = self._values(self._layout.params), self._values(self._layout.state)
        key = rngs.dropout() if rngs is not None and self.training else None
        last = self._group_of(self.block_names[-1])
        if stop is not None and self._group_of(stop) != last:
            if start is not None:
                raise ValueError(
                    f"features at {stop!r} of a model of your own start at its inputs, not {start!r}"
                )
            return self._traced.features(params, state, x, self._group_of(stop))
        training = frozenset(map(self._group_of, self.training))
        rest = (key, training, self.norm)
        if start is None:
            run = lambda params, state, x: self._traced.outputs(params, state, x, *rest)  # noqa: E731
        else:
            at = self._group_of(start)
            run = lambda params, state, x: self._traced.outputs_from(at, params, state, x, *rest)  # noqa: E731
        outputs, after = rematerialized_function(run, self.remat)(params, state, x)
        for path, value in after.items():
            if value is not state[path]:
                self._variable(self._layout.state[path]).set_value(value)
        return outputs

    @property
    def gathered(self) -> tuple[str, ...]:
        """Nothing: the function needs all arrays at once."""
        return ()

    def program_hashes(self, boundary: str) -> dict[str, str]:
        """Returns a hash of the operations up to a boundary; see `Backbone.program_hashes`."""
        params, state = self._values(self._layout.params), self._values(self._layout.state)
        return {"program": self._traced.program_hash(self._group_of(boundary), params, state)}

    def activations(self, x: Any, start: str | None, names: Iterable[str]) -> dict[str, Any]:
        """Returns the features at the end of some blocks; see `Backbone.activations`."""
        params, state = self._values(self._layout.params), self._values(self._layout.state)
        below = None if start is None else self._group_of(start)
        wanted = {*names} & {*self.span(start, None)}
        return {
            name: self._traced.activations(params, state, x, below, self._group_of(name))
            for name in self.block_names
            if name in wanted
        }

    def set_training(self, blocks: Iterable[str], norm: str) -> None:
        """Sets some blocks to training mode, and all others to inference mode; see `Backbone`."""
        self.training, self.norm = tuple(blocks), norm

    def startable(self, boundary: str) -> tuple[str, ...]:
        """Returns no boundary: features are computed from the model's inputs."""
        del boundary
        return ()

    def _group_of(self, block: str) -> str:
        return self._layout.blocks.get(block, self._traced.groups[-1])

    def _values(self, paths: Mapping[str, tuple[str, ...]]) -> dict[str, jax.Array]:
        return {path: self._variable(parts).get_value() for path, parts in paths.items()}

    def _variable(self, parts: tuple[str, ...]) -> Any:
        return functools.reduce(getattr, parts, self)


class _Layout:
    """The place of each array of a model in its backbone.

    Attributes:
        blocks: The group of each block.
        params: The names from the backbone to each parameter, by its path in the model.
        state: The same of each running statistic.
    """

    def __init__(self, model: OwnModel, groups: tuple[str, ...]) -> None:
        taken = {
            *dir(TracedBackbone),
            "block_names",
            "features",
            "taps",
            "remat",
            "scan_layers",
            "training",
            "norm",
        }
        blocks = {group: block_name(group, taken) for group in groups}
        self.blocks = {block: group for group, block in blocks.items()}
        self.params = {path: own_parts(path, group, blocks[group]) for path, group in model.groups.items()}
        self.state = {}
        for path in model.state:
            group = group_of_state(path, model.groups)
            self.state[path] = own_parts(path, group, blocks[group], state=True)
