import csv
import dataclasses
import json

import numpy as np

from transfer_jax.freezing import Phase
from transfer_jax.report.predictions import read_predictions
from transfer_jax.runs.artifacts import write_artifacts

CLASSES = ('a\nb,"c', "=1+1", "caf\udce9")


def test_names_of_any_kind_are_written(make_run):
    run = make_run(Phase(name="head", train="head", epochs=1, learning_rate=1e-3))
    names = [f"{index}\udcff, {index}.png" for index in range(len(run.evaluation))]
    run = dataclasses.replace(
        run,
        train=dataclasses.replace(run.train, class_names=CLASSES),
        evaluation=dataclasses.replace(run.evaluation, names=names, class_names=CLASSES),
    )
    labels = run.evaluation.labels
    write_artifacts(run, run.arrays, np.eye(3)[labels])
    assert json.loads((run.workdir / "model" / "model.json").read_text())["task"]["names"] == [*CLASSES]
    found = read_predictions(run.workdir / "predictions.csv")
    assert found.class_names == (*CLASSES[:2], r"caf\udce9")
    assert found.names == tuple(rf"{index}\udcff, {index}.png" for index in range(len(labels)))
    np.testing.assert_array_equal(found.labels, labels)
    with (run.workdir / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = [*csv.reader(file)]
    assert rows[0] == ["image", "label", "predicted", *(f"p({name})" for name in found.class_names)]
    assert [row[1] for row in rows[1:]] == [found.class_names[label] for label in labels]
    assert sorted(path.name for path in run.workdir.iterdir()) == ["model", "predictions.csv"]
