"""The text of a model card: the metadata of the hub, and sections in Markdown."""

from transfer_jax.report.card.card_metadata import card_metadata
from transfer_jax.report.card.card_scores import card_scores, scores_section
from transfer_jax.report.card.card_sections import (
    base_section,
    data_section,
    frozen_section,
    input_section,
    reproduce_section,
    summary,
    use_section,
)
from transfer_jax.report.card.model_facts import ModelFacts
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.yaml_text import yaml_text


def model_card(facts: ModelFacts, run: RunFiles | None = None) -> str:
    """Returns the model card of a trained model.

    It has no paths of this machine, only the last parts of them.

    Args:
        facts: The model.
        run: The files of its run; None for a model without them, whose card lacks data, scores and training.
    """
    scores = card_scores(facts.task, run) if run is not None else None
    sections = [f"# {facts.title}", summary(facts, run), use_section(facts), scores_section(facts, scores)]
    if run is not None:
        sections += [data_section(run), frozen_section(run)]
    sections += [base_section(facts), input_section(facts)]
    if run is not None:
        sections.append(reproduce_section(run))
    body = "\n\n".join(section for section in sections if section)
    return f"---\n{yaml_text(card_metadata(facts, run, scores))}---\n\n{body}\n"
