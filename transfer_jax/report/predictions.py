"""Predictions as a table, or as JSON."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transfer_jax.files import write_text


def prediction_rows(
    names: Sequence[str],
    class_names: Sequence[str],
    probabilities: np.ndarray,
    labels: np.ndarray | None = None,
) -> Iterator[dict[str, Any]]:
    """One record an image: `image`, `label` where it is known, `predicted`, and each class's probability."""
    for index, name in enumerate(names):
        row: dict[str, Any] = {"image": name}
        if labels is not None:
            row["label"] = class_names[labels[index]]
        row["predicted"] = class_names[int(probabilities[index].argmax())]
        for column, class_name in enumerate(class_names):
            row[f"p({class_name})"] = round(float(probabilities[index, column]), 6)
        yield row


def write_predictions(
    path: Path,
    names: Sequence[str],
    class_names: Sequence[str],
    probabilities: np.ndarray,
    labels: np.ndarray | None = None,
) -> None:
    """Writes predictions as CSV, or as JSON where the path ends in `.json`."""
    rows = list(prediction_rows(names, class_names, probabilities, labels))
    if path.suffix == ".json":
        text = json.dumps(rows, indent=1)
    else:
        lines = io.StringIO(newline="")
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        text = lines.getvalue()
    write_text(path, text)
