"""Sharding of a program over devices: one device, a mesh of devices, or `jax.pmap`.

There is one step function. Each device runs it on its shard of the batch (`nn.batch_shard`). Gradients,
statistics and metrics are averaged over the shards, so the results equal those of one device. Computations
that do not depend on the batch, such as the optimizer, are partitioned by XLA.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from transfer_jax.counted import counted
from transfer_jax.distributed import exchange, processes
from transfer_jax.distributed.meshes import DATA, FSDP, TENSOR, make_mesh, slices_of
from transfer_jax.distributed.partition_specs import Specs, batch_axes_specs, last_name, partition_spec
from transfer_jax.distributed.placement import placed, split_rows
from transfer_jax.models.flat_arrays import Arrays
from transfer_jax.nn import batch_shard
from transfer_jax.nn.batch_shard import BatchShard

_STATE = {"trainable", "opt_state", "ema"}
"""Fields of a training state with parameters, or arrays of their shapes."""


_MOST_UPDATE_SHARDS = 16
"""Largest number of shards of a sharded update.

Each divides a side of a matrix by it: with more of them, XLA for TPUs pads the shards to tiles and exchanges
whole arrays instead, twice as many bytes. On v5e:16x16, 16 devices are a ring of the torus.
"""


def _update_shards(devices: int) -> int:
    """Returns the number of shards of a sharded update: the largest divisor of the devices up to 16."""
    return max(each for each in range(1, _MOST_UPDATE_SHARDS + 1) if devices % each == 0)


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
        shard_update: Whether only the training state is sharded along `fsdp`, of at most 16 devices: each
            updates its shard of the parameters, which are gathered once a step. Otherwise all arrays of the
            model are sharded, and each block is gathered where it is used.
    """

    mesh: Mesh | None = None
    pmap: bool = False
    batch_norm: str = "global"
    shard_update: bool = False

    @classmethod
    def of(
        cls,
        name: str = "auto",
        *,
        fsdp: int = 1,
        tensor: int = 1,
        slices: int | None = None,
        batch_norm: str = "global",
        shard_update: bool | None = None,
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
            shard_update: As the attribute; None does so on a mesh of accelerators without `fsdp`.
            devices: The devices; None for all devices of the run.

        Raises:
            ValueError: If the number of devices is not a multiple of `slices` times `fsdp` times `tensor`,
                the devices have another number of slices, or the strategy does not support `fsdp`, `tensor`,
                `slices`, `shard_update` or several processes.
        """
        kind, devices, several = name, devices or jax.devices(), processes.count() > 1
        count, real = len(devices), slices_of(devices)
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
        if shard_update and (fsdp > 1 or kind == "pmap"):
            raise ValueError(
                f"shard_update needs strategy='mesh' and fsdp=1, got strategy={kind!r} and fsdp={fsdp}; "
                "fsdp shards the update as well"
            )
        accelerated = kind == "mesh" and fsdp == 1 and devices[0].platform != "cpu"
        updates = accelerated if shard_update is None else shard_update
        shards = _update_shards(count // (tensor * slices)) if updates else fsdp
        axes = (DATA,) if kind == "pmap" else ()
        mesh = make_mesh(devices, fsdp=shards, tensor=tensor, slices=slices, axes=axes)
        return cls(mesh, kind == "pmap", batch_norm, updates)

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
        mesh = self.mesh
        if mesh is None:
            return tree

        def on_mesh(path: Any, leaf: Any) -> Any:
            fsdp = not self.shard_update or any(getattr(key, "name", None) in _STATE for key in path)
            spec = partition_spec(mesh, last_name(path), np.shape(leaf), fsdp=fsdp)
            return placed(leaf, NamedSharding(mesh, spec))

        return jax.tree_util.tree_map_with_path(on_mesh, tree)

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
            array = split_rows(array, axis, self.count)
            return placed(array, NamedSharding(self.mesh, PartitionSpec(self._axes)))
        sharding = NamedSharding(self.mesh, PartitionSpec(*(None,) * axis, self._axes))
        if isinstance(array, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
        return jax.make_array_from_process_local_data(sharding, np.asarray(array))

    def average(
        self,
        function: Callable[..., Any],
        *,
        dtype: jax.typing.DTypeLike = jnp.float32,
        exchanged: jax.typing.DTypeLike = jnp.float32,
    ) -> Callable[..., Any]:
        """Turns a function of a shard into one of a batch, whose results are the means over the shards.

        Args:
            function: A function from `(trainable, stats, frozen, batch, key)` to
                `((gradients, metrics), stats)`.
            dtype: The precision in which the function uses `trainable`.
            exchanged: The precision in which gradients are exchanged between devices. The means are float32.
        """
        if self.mesh is None:
            return function
        precision = jnp.dtype(exchanged)

        def averaged(trains: Specs, rests: Specs, trainable: Arrays, *args: Any) -> Any:
            inside = {**trains, **rests}
            if self.shard_update:
                dtypes = dict.fromkeys(trainable, jnp.dtype(dtype))
                trainable = exchange.gather(trainable, dtypes, specs=trains, exchanged=precision)
                inside = rests
            with batch_shard.use_shard(self._batch_shard(inside, precision)):
                (gradients, metrics), stats = function(trainable, *args)
                metrics, stats = batch_shard.mean((metrics, stats))
            mean = functools.partial(
                exchange.mean, axes=self._axes, scattered=not self.shard_update, exchanged=precision
            )
            gradients = {path: mean(value, trains[path]) for path, value in gradients.items()}
            return (gradients, metrics), stats

        def mapped(trainable: Arrays, stats: Arrays, frozen: Arrays, batch: Any, key: jax.Array) -> Any:
            trains, every = self._specs(trainable), PartitionSpec()
            rests = dict.fromkeys(frozen, every) if self.shard_update else self._specs(frozen)
            shard = functools.partial(averaged, trains, rests)
            args = trainable, stats, frozen, batch, key
            if self.pmap:
                return shard(*args)
            in_specs = (trains, every, rests, PartitionSpec(self._axes), every)
            return self._shard_map(shard, in_specs, ((trains, every), every))(*args)

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
            with batch_shard.use_shard(self._batch_shard(specs, jnp.dtype(jnp.float32))):
                found = function(*args)
                return jax.tree.map(batch_shard.gather_rows, found) if whole else found

        def mapped(arrays: Arrays, batch: Any) -> Any:
            specs = dict.fromkeys(arrays, PartitionSpec()) if self.shard_update else self._specs(arrays)
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

    @property
    def _tensor(self) -> int:
        """The number of devices that share the matrices of transformers."""
        return 1 if self.mesh is None else self.mesh.shape.get(TENSOR, 1)

    def _shard_map(self, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
        assert self.mesh is not None
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            # Kernels need a program that is mapped over all axes.
            axis_names={*self.mesh.axis_names} if self._tensor == 1 else {*self._axes},
            check_vma=False,
        )

    def _specs(self, arrays: Mapping[str, Any]) -> Specs:
        """Returns the specs of sharded arrays along the axes of the batch."""
        assert self.mesh is not None
        return batch_axes_specs(self.mesh, arrays)

    def _batch_shard(self, specs: Specs, exchanged: jnp.dtype) -> BatchShard:
        sharded: Any = {"shard_kernel": self._shard_tensor} if self._tensor > 1 else {}
        return BatchShard(
            axes=self._axes,
            count=self.count,
            sync=self.batch_norm == "global",
            gather=functools.partial(exchange.gather, specs=specs, exchanged=exchanged),
            shards_blocks=any(FSDP in spec for spec in specs.values()),
            **sharded,
        )

    def _shard_tensor(self, array: jax.Array, axis: int) -> jax.Array:
        """Shards an array along `tensor`, with XLA's partitioner, if the size of the axis is divisible."""
        if array.shape[axis] % self._tensor:
            return array
        return jax.lax.with_sharding_constraint(array, PartitionSpec(*(None,) * axis, TENSOR))


ONE_DEVICE = Strategy()
