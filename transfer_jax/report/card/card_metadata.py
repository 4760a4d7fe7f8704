"""The metadata of a model card, which the Hugging Face hub reads."""

from typing import Any

from transfer_jax.report.card.card_scores import CardScores
from transfer_jax.report.card.model_facts import ModelFacts
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.public_names import public_place

_LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0"),
    *("isc", "unlicense", "openrail", "apple-amlr", "apple-ascl"),
)
"""Identifiers of licences that the hub knows; others are named in `license_name`."""
_PIPELINES = {"single_label": "image-classification", "ordinal": "image-classification"}
_PIPELINES["multi_label"] = _PIPELINES["single_label"]
_HUB_METRICS = {"macro_f1": "f1", "micro_f1": "f1", "r2": "r_squared"}


def card_metadata(facts: ModelFacts, run: RunFiles | None, scores: CardScores | None) -> dict[str, Any]:
    """Returns the metadata: library, task, licence, base model, tags and scores.

    Args:
        facts: The model.
        run: The files of its run; None if there are none.
        scores: Its scores; None if there are none.
    """
    pipeline = _PIPELINES.get(facts.task.kind)
    found: dict[str, Any] = {"library_name": "transfer_jax"}
    if pipeline:
        found["pipeline_tag"] = pipeline
    found |= _licence(facts)
    if facts.base is not None and facts.base.repo:
        found["base_model"] = facts.base.repo
    tags = [pipeline, facts.task.kind.replace("_", "-"), "transfer-learning", "jax", "flax", facts.model]
    found["tags"] = [tag for tag in dict.fromkeys(tags) if tag]
    if run is not None and scores is not None:
        found["metrics"] = [*dict.fromkeys(each["type"] for each in _metrics(facts, scores))]
        result = {
            "task": {"type": pipeline or "image-regression"},
            "dataset": _dataset(run, scores),
            "metrics": _metrics(facts, scores),
        }
        found["model-index"] = [{"name": facts.title, "results": [result]}]
    return found


def _licence(facts: ModelFacts) -> dict[str, str]:
    base = facts.base.licence if facts.base is not None else None
    licence = facts.licence or base
    if licence is None:
        return {}
    if licence.lower() in _LICENCES:
        return {"license": licence.lower()}
    return {"license": "other", "license_name": licence.lower().replace(" ", "-")}


def _dataset(run: RunFiles, scores: CardScores) -> dict[str, str]:
    name = public_place(str(run.config["images"]))
    kind, _, rest = name.partition(":")
    kinds = {"tfds": rest.split("?")[0].split(":")[0], "csv": "csv", "folder": "imagefolder"}
    return {"name": name, "type": kinds.get(kind, "imagefolder") or name, "split": scores.part}


def _metrics(facts: ModelFacts, scores: CardScores) -> list[dict[str, Any]]:
    found = []
    for metric in facts.task.metrics:
        value = metric.of(scores.values)
        if value is not None:
            kind = _HUB_METRICS.get(metric.name, metric.name)
            found.append({"type": kind, "value": float(f"{value:.6g}"), "name": metric.title})
    return found
