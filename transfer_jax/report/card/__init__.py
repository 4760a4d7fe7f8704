"""Model cards: the `README.md` of a model on the Hugging Face hub, made from the files of a run."""

from transfer_jax.report.card.model_card import model_card
from transfer_jax.report.card.model_facts import ModelFacts, PretrainedWeights

__all__ = ["ModelFacts", "PretrainedWeights", "model_card"]
