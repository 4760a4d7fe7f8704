"""The fields of a config about the network and its weights."""

import dataclasses

from transfer_jax.config.checks import check_ranges
from transfer_jax.fields import convert_fields
from transfer_jax.freezing.selectors import parse


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network, the weights that it starts from, and its head.

    Attributes:
        model: Name of the network (`transfer-jax models`).
        weights: `auto` for the weights published for the network, a file or a folder, or `none` for random
            weights.
        weights_entry: The part of the weight file to load, if it has several: the name of a state dict, such
            as `state_dict_ema`, or the prefix of the keys, such as `teacher`. Empty for the only one.
        reinitialize: Selector of backbone blocks that start from random parameters instead of the
            pretrained ones, as whole blocks; empty for none.
        hidden: Widths of the hidden layers of the head; empty for a linear head.
        taps: Whether the head reads the pooled outputs of all blocks, concatenated (see `Backbone`).
        dropout: Dropout rate before the classifier; None takes the network's own.
        drop_path: Stochastic depth rate of the backbone's last block while it trains; lower blocks have
            smaller rates.
    """

    model: str = "efficientnet_lite0"
    weights: str = "auto"
    weights_entry: str = ""
    reinitialize: str = ""
    hidden: tuple[int, ...] = ()
    taps: bool = False
    dropout: float | None = None
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        convert_fields(self, ModelConfig)
        check_ranges(self, dropout="in [0, 1)", drop_path="in [0, 1)")
        if self.reinitialize:
            object.__setattr__(self, "reinitialize", str(parse(self.reinitialize)))
