"""The fields of a config about precision, memory and devices."""

import dataclasses
import re
from typing import Literal

from transfer_jax.config.checks import check_choices, check_ranges
from transfer_jax.fields import convert_fields
from transfer_jax.models.remat_names import Remat

Precision = Literal["float32", "bfloat16"]
PrefixPrecision = Literal["auto", "float32", "bfloat16", "int8"]
ExchangePrecision = Literal["auto", "float32", "bfloat16"]
StrategyName = Literal["auto", "jit", "mesh", "pmap"]
BatchNorm = Literal["global", "per_device"]
Order = Literal["global", "blocks"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """The precision of a step, its memory, its compilation, and its devices.

    Attributes:
        precision: The precision of the forward and backward pass, `float32` or `bfloat16`; parameters stay
            float32.
        prefix_precision: The precision of the frozen blocks below the trainable ones, with and without
            cached features; `auto` takes `precision`. `int8` computes their convolutions and linear layers
            with 8-bit integers, calibrated on training images, and everything else in `precision`. Steps,
            caches and validation images use it; the saved model has the original weights, and `predict`,
            `evaluate` and `export` compute in float.
        remat: The activations that the backward pass recomputes instead of storing them: `none`; `dots` for
            all inside a block but the results of linear layers; `block` for all inside a block, which takes
            the least memory and one more forward pass; `offload` for those of `dots`, with the results of
            linear layers in the memory of the host until then (TPUs and GPUs only).
        scan_layers: Whether a run of equal blocks, such as those of a transformer, is compiled once: as a
            loop over stacked parameters, which each step copies. The results are the same but for rounding.
            Other blocks, networks with taps and models of your own are compiled as without it.
        strategy: The devices of a step: `jit` uses one device; `mesh` shards the batch over all
            devices; `pmap` does the same with `jax.pmap`; `auto` takes a mesh if there are several
            accelerators or processes, else one device.
        gradient_exchange: The precision in which devices exchange gradients and gather parameters: `float32`,
            `bfloat16` (half the bytes), or `auto` for `precision`. Each device then rounds its gradients to
            8 bits, and the network may round the sums. Norms, clipping and the optimizer stay float32.
        fsdp: Number of devices that parameters and optimizer state are sharded over; a larger `mesh`
            replicates them.
        shard_update: Whether each device of a mesh updates only its shard of the trainable parameters (ZeRO,
            stage 1), which takes less memory and traffic, and exchanges as many bytes. None does so on
            accelerators without `fsdp`.
        tensor: Number of devices that the matrices of a transformer are sharded over.
        slices: Number of TPU slices, which exchange gradients over the network of the data centre; parameters
            are sharded inside of a slice. None takes the slices of the devices. `plan --topology` needs it.
        batch_norm: `global` normalizes by the statistics of the whole batch, so that the results are those
            of one device; `per_device` normalizes by the shard on each device, which saves communication.
        compile_ahead: Whether the next phase is compiled while the current one trains; None does so with
            more than two CPU cores.
        compiler_options: XLA options of the training step, as `name=value`, for example
            xla_tpu_enable_latency_hiding_scheduler=true.
        threads: Number of threads that read images, in each process that does; None chooses from the cores.
        read_processes: Number of processes that read images, for many cores: threads alone use five or six of
            them. 0 reads in the threads of the run. None takes all cores but four on a machine with more than
            eight cores and an accelerator. A script with more than 0 needs `if __name__ == "__main__"`.
        order: The order of training images: `global` shuffles all of them, `blocks` shuffles blocks of
            neighbours and then those of a few blocks. Blocks read large pieces of files, and each process of
            a pod reads files of its own. The order of blocks depends on the number of processes.
    """

    precision: Precision = "float32"
    prefix_precision: PrefixPrecision = "auto"
    remat: Remat = "none"
    scan_layers: bool = False
    strategy: StrategyName = "auto"
    gradient_exchange: ExchangePrecision = "auto"
    fsdp: int = 1
    shard_update: bool | None = None
    tensor: int = 1
    slices: int | None = None
    batch_norm: BatchNorm = "global"
    compile_ahead: bool | None = None
    compiler_options: tuple[str, ...] = ()
    threads: int | None = None
    read_processes: int | None = None
    order: Order = "global"

    def __post_init__(self) -> None:
        if isinstance(self.remat, bool):  # As in configs of earlier versions.
            object.__setattr__(self, "remat", "block" if self.remat else "none")
        convert_fields(self, ComputeConfig)
        check_choices(
            self,
            remat=Remat,
            precision=Precision,
            prefix_precision=PrefixPrecision,
            gradient_exchange=ExchangePrecision,
            strategy=StrategyName,
            batch_norm=BatchNorm,
            order=Order,
        )
        check_ranges(
            self, threads="at least 1", read_processes="at least 0", fsdp="at least 1", tensor="at least 1"
        )
        if self.prefix_precision == "int8" and self.fsdp * self.tensor > 1:
            raise ValueError(
                f"prefix_precision='int8' needs fsdp=1 and tensor=1, got fsdp={self.fsdp} and "
                f"tensor={self.tensor}: kernels in int8 are whole on each device"
            )
        if self.slices is not None:
            check_ranges(self, slices="at least 1")
        for option in self.compiler_options:
            if not re.fullmatch(r"xla_\w+=\S+", option):
                raise ValueError(f"compiler_options must be like xla_name=value, got {option!r}")
