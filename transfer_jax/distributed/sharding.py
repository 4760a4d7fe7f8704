"""Sharding of a program over devices: one device, a mesh of devices, or `jax.pmap`.

There is one step function. Each device runs it on its shard of the batch (`nn.batch_shard`). Gradients,
statistics and metrics are averaged over the shards, so the results equal those of one device. Computations
that do not depend on the batch, such as the optimizer, are partitioned by XLA.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax import core
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from transfer_jax.counted import counted
from transfer_jax.distributed import processes
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.nn import batch_shard
from transfer_jax.nn.batch_shard import BatchShard

Specs = dict[str, PartitionSpec]

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
_MIN_SHARDED_SIZE = 1024
"""The smallest number of elements of an array that is sharded along `fsdp`."""
_COLUMNS = re.compile(r"(qkv|fc1)/(kernel|bias)$")
_ROWS = re.compile(r"(proj|fc2)/kernel$")


@dataclasses.dataclass(frozen=True)
class Strategy:
    """The sharding of arrays and batches, and the compilation of functions of them.

    Attributes:
        mesh: The devices by axes. `data` splits the batch. `fsdp` splits the batch, the parameters and the
            optimizer state. `tensor` splits the matrices of transformers. Several slices are along `data`,
            one after the other. None for one device.
        pmap: Whether to compile with `jax.pmap`. The mesh then has only the axis `data`.
        batch_norm: `global` for BatchNorm statistics of the whole batch, `per_device` for those of each
            device's shard.
    """

    mesh: Mesh | None = None
    pmap: bool = False
    batch_norm: str = "global"

    @classmethod
    def of(
        cls,
        name: str = "auto",
        *,
        fsdp: int = 1,
        tensor: int = 1,
        slices: int | None = None,
        batch_norm: str = "global",
        devices: Sequence[Any] | None = None,
    ) -> "Strategy":
        """Returns the strategy with a name (see `TrainConfig.strategy`).

        `auto` is a mesh if there are several accelerators or several processes, else one device: virtual
        devices of a CPU have no more cores than one device.

        Args:
            name: `auto`, `jit`, `mesh` or `pmap`.
            fsdp: Number of devices that share parameters and optimizer state.
            tensor: Number of devices that share the matrices of transformers.
            slices: Number of slices, which exchange gradients only; None takes those of the devices.
            batch_norm: As the attribute.
            devices: The devices; None for all devices of the run.

        Raises:
            ValueError: If the number of devices is not a multiple of `slices` times `fsdp` times `tensor`,
                the devices have another number of slices, or the strategy does not support `fsdp`, `tensor`,
                `slices` or several processes.
        """
        kind, devices, several = name, devices or jax.devices(), processes.count() > 1
        count, real = len(devices), _slices(devices)
        if slices is not None and real > 1 and slices != real:
            raise ValueError(f"the devices are those of {real} slices, got slices={slices}; leave it out")
        slices = slices or real
        if kind == "auto":
            many = several or (count > 1 and devices[0].platform != "cpu")
            kind = "mesh" if many or fsdp * tensor * slices > 1 else "jit"
        if kind != "mesh" and fsdp * tensor * slices > 1:
            wanted = f"fsdp={fsdp}, tensor={tensor} and slices={slices}"
            raise ValueError(f"{wanted} need strategy='mesh', got {kind!r}")
        if kind != "mesh" and several:
            raise ValueError(f"{processes.count()} processes need strategy='mesh', got {kind!r}")
        if kind == "jit":
            return ONE_DEVICE
        if count % (fsdp * tensor * slices):
            times = f" times slices={slices}" if slices > 1 else ""
            raise ValueError(
                f"the number of devices, {count}, is not a multiple of fsdp={fsdp} times tensor={tensor}"
                f"{times}; choose other values"
            )
        sizes = {DATA: count // (fsdp * tensor), FSDP: fsdp, TENSOR: tensor}
        axes = {DATA: count} if kind == "pmap" else sizes
        types = (AxisType.Auto,) * len(axes)
        if slices > 1:
            arranged = _sliced((count // (fsdp * tensor * slices), fsdp, tensor), slices, devices)
            return cls(Mesh(arranged, tuple(axes), axis_types=types), False, batch_norm)
        mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), types, devices=devices)
        return cls(mesh, kind == "pmap", batch_norm)

    @property
    def count(self) -> int:
        """The number of shards of a batch."""
        return 1 if self.mesh is None else int(np.prod([self.mesh.shape[axis] for axis in self._axes]))

    @property
    def _axes(self) -> tuple[str, ...]:
        """The axes that a batch is split along."""
        assert self.mesh is not None
        return tuple(axis for axis in (DATA, FSDP) if axis in self.mesh.shape)

    def local(self) -> "Strategy":
        """Returns a strategy for the devices of this process alone, each with a full copy of the arrays."""
        if self.mesh is None:
            return self
        own = [device for device in self.mesh.devices.flat if device.process_index == processes.index()]
        return Strategy(Mesh(np.array(own), (DATA,), axis_types=(AxisType.Auto,)))

    def place(self, tree: Any) -> Any:
        """Returns arrays, or their shapes, sharded by name. All processes must pass the same arrays."""
        if self.mesh is None:
            return tree
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: _placed(leaf, self._sharding(_name(path), leaf)), tree
        )

    def _sharding(self, name: str, leaf: Any) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, self._spec(name, np.shape(leaf)))

    def _spec(self, name: str, shape: tuple[int, ...]) -> PartitionSpec:
        """Returns the spec: `tensor` on the axis set by the name, `fsdp` on the largest divisible axis."""
        assert self.mesh is not None
        sizes, spec = self.mesh.shape, cast(list[str | None], [None] * len(shape))
        tensor, fsdp = sizes.get(TENSOR, 1), sizes.get(FSDP, 1)
        along = len(shape) - 1 if _COLUMNS.search(name) else 0 if _ROWS.search(name) else None
        if tensor > 1 and along is not None and shape and shape[along] % tensor == 0:
            spec[along] = TENSOR
        free = [axis for axis, used in enumerate(spec) if used is None and shape[axis] % fsdp == 0]
        if fsdp > 1 and free and np.prod(shape) >= _MIN_SHARDED_SIZE:
            spec[max(free, key=lambda axis: shape[axis])] = FSDP
        return PartitionSpec(*spec)

    def rows(self, size: int) -> np.ndarray:
        """Returns the indices of the rows that this process must read, in a batch of `size` rows."""
        if self.mesh is None or processes.count() == 1:
            return np.arange(size)
        sharding = NamedSharding(self.mesh, PartitionSpec(self._axes))
        slices = sharding.addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[part] for part in slices]))

    def check_rows(self, size: int, parts: int = 1) -> None:
        """Checks that the batch size is divisible by the number of shards times `parts`.

        Raises:
            ValueError: If it is not divisible.
        """
        if size % (self.count * parts):
            each = f" in {parts} parts each" if parts > 1 else ""
            raise ValueError(
                f"a batch of {counted(size, 'image')} is not divisible by {self.count} devices{each}; choose "
                f"a batch_size that is a multiple of {self.count * parts} and at most the number of images"
            )

    def batch(self, rows: Mapping[str, Any], *, axis: int = 0) -> dict[str, Any]:
        """Returns a batch on the devices from the rows that this process has read.

        Args:
            rows: Arrays, or dictionaries of them, with the rows that `rows()` names along `axis`, in that
                order; or the shapes of whole arrays.
            axis: The axis of the images.
        """
        if self.mesh is None:
            return dict(rows)
        return jax.tree.map(lambda array: self._on_devices(array, axis), dict(rows))

    def whole(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a batch for a program that is compiled by `jit` and uses all rows at once; see `batch`."""
        return dict(rows) if self.pmap else self.batch(rows)

    def _on_devices(self, array: Any, axis: int) -> Any:
        assert self.mesh is not None
        if self.pmap:
            array = _split(array, axis, self.count)
            return _placed(array, NamedSharding(self.mesh, PartitionSpec(self._axes)))
        sharding = NamedSharding(self.mesh, PartitionSpec(*(None,) * axis, self._axes))
        if isinstance(array, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    def average(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Turns a function of a shard into one of a batch, whose results are the means over the shards.

        Args:
            function: A function from `(trainable, stats, frozen, batch, key)` to
                `((gradients, metrics), stats)`.
        """
        if self.mesh is None:
            return function

        def averaged(specs: Specs, *args: Any) -> Any:
            with batch_shard.use_shard(self._batch_shard(specs)):
                (gradients, metrics), stats = function(*args)
                metrics, stats = batch_shard.mean((metrics, stats))
                gradients = {path: self._mean(value, specs[path]) for path, value in gradients.items()}
            return (gradients, metrics), stats

        def mapped(trainable: Arrays, stats: Arrays, frozen: Arrays, batch: Any, key: jax.Array) -> Any:
            specs, every = self._specs({**trainable, **frozen}), PartitionSpec()
            args = trainable, stats, frozen, batch, key
            if self.pmap:
                return averaged(specs, *args)
            trains, rests = ({path: specs[path] for path in arrays} for arrays in (trainable, frozen))
            in_specs = (trains, every, rests, PartitionSpec(self._axes), every)
            out_specs = ((trains, every), every)
            return self._shard_map(functools.partial(averaged, specs), in_specs, out_specs)(*args)

        return mapped

    def each(self, function: Callable[..., Any], *, whole: bool = True) -> Callable[..., Any]:
        """Turns a function `(arrays, batch)` of a shard into one of a batch.

        Args:
            function: The function.
            whole: Whether to gather the results of all rows on all devices.
        """
        if self.mesh is None:
            return function

        def joined(specs: Specs, *args: Any) -> Any:
            with batch_shard.use_shard(self._batch_shard(specs)):
                found = function(*args)
                return jax.tree.map(batch_shard.gather_rows, found) if whole else found

        def mapped(arrays: Arrays, batch: Any) -> Any:
            specs = self._specs(arrays)
            if self.pmap:
                return joined(specs, arrays, batch)
            rows = PartitionSpec(self._axes)
            out_specs = PartitionSpec() if whole else rows
            return self._shard_map(functools.partial(joined, specs), (specs, rows), out_specs)(arrays, batch)

        return mapped

    def jit(
        self, function: Callable[..., Any], *args: Any, batch: int | None, donate: tuple[int, ...]
    ) -> Any:
        """Returns the function wrapped in `jax.jit` or `jax.pmap`, for arguments like `args`.

        Args:
            function: The function.
            *args: Arrays, or their shapes.
            batch: Position of the batch in `args`; None if there is no batch.
            donate: Positions of arguments whose memory the results may reuse. The first result has the
                sharding of the first of them.
        """
        if self.pmap and batch is not None:
            axes = tuple(0 if index == batch else None for index in range(len(args)))
            options: Any = {"axis_name": DATA, "in_axes": axes, "out_axes": None}
            assert self.mesh is not None
            return jax.pmap(function, devices=[*self.mesh.devices.flat], donate_argnums=donate, **options)
        kept: Any = {}
        if self.mesh is not None and donate:
            everywhere = NamedSharding(self.mesh, PartitionSpec())
            kept["out_shardings"] = (jax.tree.map(lambda leaf: leaf.sharding, args[donate[0]]), everywhere)
        # Unused arguments are kept, so that the compiled text and trees match the arguments.
        return jax.jit(function, donate_argnums=donate, keep_unused=True, **kept)

    def _shard_map(self, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            axis_names={*self._axes},
            check_vma=False,
        )

    def _specs(self, arrays: Mapping[str, Any]) -> Specs:
        """Returns the partition specs of arrays along the axes of the batch."""
        specs = {path: self._spec(path, np.shape(array)) for path, array in arrays.items()}
        return {
            path: PartitionSpec(*(axis if axis == FSDP else None for axis in spec))
            for path, spec in specs.items()
        }

    def _batch_shard(self, specs: Specs) -> BatchShard:
        return BatchShard(
            axes=self._axes,
            count=self.count,
            sync=self.batch_norm == "global",
            gather=functools.partial(_gather, specs=specs),
            shard_kernel=self._shard_tensor,
        )

    def _shard_tensor(self, array: jax.Array, axis: int) -> jax.Array:
        """Shards an array along `tensor`, with XLA's partitioner, if the size of the axis is divisible."""
        size = 1 if self.mesh is None else self.mesh.shape.get(TENSOR, 1)
        if size == 1 or array.shape[axis] % size:
            return array
        return jax.lax.with_sharding_constraint(array, PartitionSpec(*(None,) * axis, TENSOR))

    def _mean(self, gradient: jax.Array, spec: PartitionSpec) -> jax.Array:
        """Returns the mean of a gradient over all shards. `all_gather`'s transpose has summed `fsdp`'s."""
        if FSDP not in spec:
            return jax.lax.pmean(gradient, self._axes)
        return jax.lax.pmean(gradient, DATA) / jax.lax.axis_size(FSDP)


def _slices(devices: Sequence[Any]) -> int:
    """Returns the number of TPU slices that devices are in."""
    return len({getattr(device, "slice_index", 0) for device in devices if device.platform == "tpu"}) or 1


def _sliced(shape: tuple[int, ...], slices: int, devices: Sequence[Any]) -> np.ndarray:
    """Returns a mesh of slices along its first axis, each of a shape.

    Only the first axis is across slices, whose network is slow (Cloud TPU Multislice). Devices without
    slices, such as those of a CPU, are divided in their order.
    """
    if _slices(devices) > 1:
        across = (slices, *(1,) * (len(shape) - 1))
        return mesh_utils.create_hybrid_device_mesh(shape, across, devices=devices)
    return np.array(devices).reshape(slices * shape[0], *shape[1:])


def _gather(arrays: dict[str, jax.Array], *, specs: Specs) -> dict[str, jax.Array]:
    def whole(path: str, array: jax.Array) -> jax.Array:
        spec = specs.get(path, PartitionSpec())
        return jax.lax.all_gather(array, FSDP, axis=spec.index(FSDP), tiled=True) if FSDP in spec else array

    return {path: whole(path, array) for path, array in arrays.items()}


def _placed(leaf: Any, sharding: NamedSharding) -> Any:
    if isinstance(leaf, core.Tracer) or (isinstance(leaf, jax.Array) and leaf.sharding == sharding):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    if isinstance(leaf, jax.Array) and leaf.is_fully_addressable == sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    host = processes.to_host(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _split(array: Any, axis: int, count: int) -> Any:
    """Returns the shards of an array along a new first axis."""
    shape = array.shape
    parted = (*shape[:axis], count, shape[axis] // count, *shape[axis + 1 :])
    if isinstance(array, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((count, *parted[:axis], *parted[axis + 1 :]), array.dtype)
    return np.moveaxis(np.asarray(array).reshape(parted), axis, 0)


def _name(path: Any) -> str:
    """Returns the path of a parameter: the last dictionary key on the path to a leaf."""
    keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return str(keys[-1]) if keys else ""


ONE_DEVICE = Strategy()
