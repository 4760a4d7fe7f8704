"""The published peaks of the chips of TPU pods."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """The published peaks of one chip.

    Attributes:
        flops: FLOPs per second in bfloat16.
        memory: Bytes of high-bandwidth memory.
        bandwidth: Bytes per second between the memory and the chip.
        link: Bytes per second to other chips, in one direction, over all links.
        network: Bytes per second to other slices: the bandwidth of the network of the data centre to a pod,
            divided by its chips.
        cycle_flops: FLOPs per cycle in bfloat16 of all matrix units (MXU) of the chip.
        cores: Number of cores, each with a vector unit.
        integer_speed: Operations per second on 8-bit integers, as a multiple of `flops`.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float
    network: float
    cycle_flops: int
    cores: int = 1
    integer_speed: float = 2.0

    @property
    def clock(self) -> float:
        """Cycles per second, from the published peak: 1.50 GHz of v5e, 1.75 GHz of v5p and v6e."""
        return self.flops / self.cycle_flops


CHIPS = {
    "v5e": Chip(197e12, 16e9, 819e9, 200e9, 3.125e9, 2 * 4 * 128 * 128),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 600e9, 6.25e9, 2 * 8 * 128 * 128, cores=2),
    "v6e": Chip(918e12, 32e9, 1638e9, 400e9, 12.5e9, 2 * 4 * 256 * 256),
}
"""Source: docs.cloud.google.com/tpu/docs/v5e, v5p-training and v6e, "key specifications".

For v5p, `network` is a quarter of the 200 Gbit/s of a host. A multiply-add is two FLOPs. A v5e has four
matrix units of 128 x 128, a v5p has two cores with four each. For v6e, the documentation names two units of
256 x 256, but the compiler plans matrix products of 4096 x 4096 with 456,000 FLOPs per cycle, which needs
four.
"""
