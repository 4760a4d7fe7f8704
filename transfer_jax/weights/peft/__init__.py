"""Adapters in the files of Hugging Face's peft: `adapter_config.json` and `adapter_model.safetensors`.

LoRA, DoRA and IA3 of linear layers and convolutions exist in both. peft's updates of one kernel that is three
here, or the other way round, are converted without a loss.
"""

from transfer_jax.weights.peft.load import load_peft
from transfer_jax.weights.peft.save import save_peft

__all__ = ["load_peft", "save_peft"]
