"""Published recipes of transfer learning. Each returns a `Schedule`; schedules are joined by `+`."""

from transfer_jax.freezing.recipes.adaptive import (
    auto_rgn,
    auto_snr,
    autofreeze,
    egeria,
    freezeout,
    pipetransformer,
)
from transfer_jax.freezing.recipes.cached_features import frofa, head2toe
from transfer_jax.freezing.recipes.chollet import feature_extraction, five_steps, frozen_base
from transfer_jax.freezing.recipes.full_network import (
    gradual_unfreezing,
    l2_sp,
    layer_decay,
    lp_ft,
    wise_ft,
)
from transfer_jax.freezing.recipes.partial import (
    attention_only,
    bitfit,
    lora,
    norm_only,
    surgical,
    top_k,
)

RECIPES = {
    recipe.__name__: recipe
    for recipe in (
        feature_extraction,
        frozen_base,
        five_steps,
        frofa,
        head2toe,
        lp_ft,
        wise_ft,
        l2_sp,
        layer_decay,
        gradual_unfreezing,
        top_k,
        surgical,
        bitfit,
        norm_only,
        attention_only,
        lora,
        auto_rgn,
        auto_snr,
        freezeout,
        autofreeze,
        pipetransformer,
        egeria,
    )
}
"""All recipes by name."""

__all__ = [
    "RECIPES",
    "attention_only",
    "auto_rgn",
    "auto_snr",
    "autofreeze",
    "bitfit",
    "egeria",
    "feature_extraction",
    "five_steps",
    "freezeout",
    "frofa",
    "frozen_base",
    "gradual_unfreezing",
    "head2toe",
    "l2_sp",
    "layer_decay",
    "lora",
    "lp_ft",
    "norm_only",
    "pipetransformer",
    "surgical",
    "top_k",
    "wise_ft",
]
