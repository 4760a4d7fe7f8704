"""The grid of settings that a search over heads tries."""

import dataclasses
import itertools


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """The settings of a search: all combinations of these values, 256 by default.

    Attributes:
        learning_rates: Constant learning rates of AdamW; by default eight, evenly spaced on a log scale.
        weight_decays: Decoupled weight decays of the kernel.
        label_smoothings: Probability masses of the target that are spread evenly over the classes.
        seeds: Seeds of the order of the images and of dropout.
    """

    learning_rates: tuple[float, ...] = (1e-4, 1.93e-4, 3.73e-4, 7.2e-4, 1.389e-3, 2.683e-3, 5.179e-3, 1e-2)
    weight_decays: tuple[float, ...] = (0.0, 0.01, 0.1, 1.0)
    label_smoothings: tuple[float, ...] = (0.0, 0.1)
    seeds: tuple[int, ...] = (0, 1, 2, 3)

    def __post_init__(self) -> None:
        for name, good, wanted in (
            ("learning_rates", all(rate > 0 for rate in self.learning_rates), "above 0"),
            ("weight_decays", all(decay >= 0 for decay in self.weight_decays), "at least 0"),
            ("label_smoothings", all(0 <= share < 1 for share in self.label_smoothings), "in [0, 1)"),
            ("seeds", all(seed >= 0 for seed in self.seeds), "at least 0"),
        ):
            if not getattr(self, name) or not good:
                raise ValueError(f"{name} must be one or more numbers {wanted}, got {getattr(self, name)}")

    def settings(self) -> list[tuple[float, float, float]]:
        """Returns the learning rate, weight decay and label smoothing of each candidate of one seed."""
        return list(itertools.product(self.learning_rates, self.weight_decays, self.label_smoothings))
