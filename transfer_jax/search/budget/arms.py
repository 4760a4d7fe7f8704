"""The schedules that a search compares: what to unfreeze of a network, at which rate."""

import dataclasses

from transfer_jax.freezing.phase import Phase
from transfer_jax.freezing.recipes import feature_extraction
from transfer_jax.freezing.schedule import Schedule

VIEWS = 4
"""Number of augmented views of each image, whose features are cached."""
FIRST_EPOCHS = 4
"""Epochs of the first rung; each next one has twice as many."""
MOST_RUNGS = 4
HEAD_EPOCHS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to fine-tune a network: the head is trained first, then the head and its top blocks.

    Attributes:
        network: Name of the network.
        unfreeze: Selector of the top blocks and the head.
        learning_rate: The highest learning rate of these.
    """

    network: str
    unfreeze: str
    learning_rate: float

    @property
    def name(self) -> str:
        """The arm as part of the name of a folder."""
        kept = "".join(char if char.isalnum() else "-" for char in self.unfreeze).strip("-")
        return f"{self.network}_{kept}_{self.learning_rate:g}"

    def trial(self, rung: int) -> str:
        """Returns the name of the trial of a rung."""
        return f"{self.name}_{rung + 1}"

    def text(self, rung: int) -> str:
        """Returns the trained part, the epochs and the rate in a few words."""
        return f"{self.unfreeze} x {epochs_until(rung)}, rate {self.learning_rate:g}"

    def schedule(self, rung: int) -> Schedule:
        """Returns the schedule until the end of a rung.

        Each rung is a phase of its own, whose learning rate rises and falls again (warm restarts, Loshchilov
        and Hutter 2017, arXiv:1608.03983). The phases of a rung are therefore the first phases of the next
        one, which continues from its checkpoint.
        """
        schedule = feature_extraction(epochs=HEAD_EPOCHS)
        for number in range(rung + 1):
            phase = Phase(
                name=f"top_{number + 1}",
                train=self.unfreeze,
                epochs=FIRST_EPOCHS * 2**number,
                learning_rate=self.learning_rate,
                warmup=0.1,
                augment=True,
                views=VIEWS,
            )
            schedule += Schedule((phase,))
        return schedule


def epochs_until(rung: int) -> int:
    """Returns the epochs of all rungs up to one."""
    return FIRST_EPOCHS * (2 ** (rung + 1) - 1)


def arms_of(network: str, blocks: int) -> tuple[Arm, ...]:
    """Returns the arms of a network, the most promising first.

    The default of `train` comes first: a third of the blocks at a low rate.

    Args:
        network: Name of the network.
        blocks: Number of its blocks that have parameters.
    """
    third = max(round(blocks / 3), 2)
    depths = [(third, 1e-4), (third, 3e-4), (2, 3e-4), (max(2 * third, 3), 1e-4), (2, 1e-3)]
    depths.append((max(2 * third, 3), 3e-4))
    chosen = dict.fromkeys((min(depth, blocks - 1), rate) for depth, rate in depths)
    return tuple(Arm(network=network, unfreeze=f"top({depth})", learning_rate=rate) for depth, rate in chosen)
