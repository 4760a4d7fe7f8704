"""Folders of a run and of a study with made-up values, and a browser."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from transfer_jax.config import TrainConfig
from transfer_jax.freezing import Phase, Schedule
from transfer_jax.report.predictions import write_predictions
from transfer_jax.tasks import SingleLabel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BLOCKS = ("stem", "blocks.1", "blocks.11", "top")
CLASSES = ("red", "green", "<b>blue</b>")
SCHEDULE = Schedule(
    (
        Phase(name="head", train="head", epochs=6, learning_rate=1e-2),
        Phase(name="top", train="top(2)", epochs=4, learning_rate=1e-3, layer_decay=0.5),
    )
)


def scores_of(confusion: np.ndarray) -> dict[str, Any]:
    """Scores in the form of `Task.scores`."""
    hits, true, found = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    recall, precision = hits / true, hits / np.maximum(found, 1)
    f1 = 2 * hits / np.maximum(true + found, 1)
    return {
        "accuracy": float(hits.sum() / true.sum()),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "roc_auc": 0.875,
        "log_loss": 0.61,
        "images": int(true.sum()),
        "confusion": confusion.tolist(),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "images": int(true[i]),
            }
            for i, name in enumerate(CLASSES)
        },
    }


def rates_of(phase: Phase, epoch: int) -> dict[str, float]:
    rate = phase.learning_rate * (1 - (epoch - 1) / phase.epochs)
    if phase.name == "head":
        return {"head": rate}
    return {"blocks.11": rate / 4, "top": rate / 2, "head": rate}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Writes the workdir of a run.

    `epochs` is the number of finished epochs, of ten; `diagnosed` adds diagnostics. Other keywords are fields
    of the config.
    """

    def make(folder: Path, *, seed: int = 0, epochs: int = 10, diagnosed: bool = False, **fields) -> Path:
        rng = np.random.default_rng(seed)
        settings = {"images": "toy", "schedule": SCHEDULE, "seed": seed, **fields}
        config = TrainConfig(**settings)
        write_json(folder / "config.json", config.to_json())
        confusion = np.array([[14, 3, 3], [2, 16, 2], [4, 1, 5]]) + rng.integers(0, 3, (3, 3))
        lines, planned, phases, at = [], [], [], 0
        for index, phase in enumerate(config.schedule.phases):
            for epoch in range(1, phase.epochs + 1):
                rates = rates_of(phase, epoch)
                planned.append({"phase": phase.name, "epoch": epoch, "rates": rates})
                at += 1
                if at > epochs:
                    continue
                where = {"step": 5 * at, "phase": phase.name}
                loss = float(np.exp(-at / 5) + rng.normal(0, 0.02))
                figures = {"loss": loss, "accuracy": 1 - loss / 2, "learning_rate": rates["head"]}
                lines.append(
                    {**where, "kind": "train", "epoch": epoch, "frozen_depth": 0, **figures, "rates": rates}
                )
                measured = {block: rate * at * 10 for block, rate in rates.items()}
                noisy = {**measured, "head": float("inf")}
                lines.append({**where, "kind": "depth", "rgn": measured, "snr": noisy, "distance": measured})
                if epoch == phase.epochs:
                    lines.append({**where, "kind": "evaluation", "epoch": epoch, **scores_of(confusion)})
                    write_freeze_record(folder, index, phase)
                    phases.append(phase_result(phase, scores_of(confusion)))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        seconds = {"step": 12.0, "start_up": 3.0, "compile": 4.5, "extract": 2.0, "lost": 0.0, "other": 0.5}
        verdict = "compile-bound: keep JAX_COMPILATION_CACHE_DIR between runs"
        write_json(folder / "goodput.json", {"seconds": seconds, "share": 0.5454, "verdict": verdict})
        write_json(folder / "environment.json", ENVIRONMENT)
        timeline = {"blocks": [*BLOCKS, "head"], "parameters": SIZES, "planned": planned}
        write_json(folder / "timeline.json", {**timeline, "images": {"train": 150, "held_out": 50}})
        write_json(folder / "phases.json", {"phases": phases})
        if epochs >= 10:
            finish(folder, confusion, rng)
        if diagnosed:
            diagnose(folder)
        return folder

    return make


SIZES = {"stem": 200, "blocks.1": 700, "blocks.11": 800, "top": 400, "head": 51}
ENVIRONMENT = {
    "time": "2026-11-27T10:00:00+00:00",
    "python": "3.13.1",
    "versions": {"transfer_jax": "0.1.0", "jax": "0.11.2"},
    "machine": "Linux 6.1, x86_64",
    "cores": 2,
    "memory": 8e9,
    "devices": [{"platform": "cpu", "kind": "cpu", "count": 1}],
    "processes": 1,
    "variables": {},
    "command": ["transfer-jax", "train", "my toys.py", "--seed", "0"],
    "images_given": False,
}


def phase_result(phase: Phase, scores: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": phase.name,
        "trainable_parameters": 51 if phase.name == "head" else 1251,
        "optimizer_bytes": 10_008,
        "boundary": "pre_logits" if phase.name == "head" else "blocks.1",
        "extracted": 48,
        "step_flops": 12_000_000,
        "extract_seconds": 1.0,
        "compile_seconds": 2.0,
        "train_seconds": 6.0,
        "images_per_second": 1234.5,
        "metrics": scores,
    }


def write_freeze_record(folder: Path, index: int, phase: Phase) -> None:
    """Writes the freeze record of a finished phase."""
    trained = ["head"] if phase.name == "head" else ["blocks.11", "top", "head"]
    frozen = {f"backbone/{block}/kernel": "0" * 64 for block in BLOCKS if block not in trained}
    span = {
        "steps": [0, 5 * phase.epochs],
        "frozen_depth": 0,
        "boundary": None,
        "trained": {"blocks": trained, "parameters": 51 if index == 0 else 1251, "statistics": 0},
        "rates": {},
        "optimizer_bytes": 10_008,
        "frozen": {"arrays": len(frozen), "sha256_before": "ab" * 32, "sha256_after": "ab" * 32},
    }
    content = {"phase": phase.name, "train": phase.train, "spans": [span], "frozen": frozen}
    write_json(folder / "certificates" / f"{index + 1:02}-{phase.name}.json", content)


def finish(folder: Path, confusion: np.ndarray, rng: np.random.Generator) -> None:
    """Writes the predictions and the misclassified images of a finished run."""
    labels = np.repeat(np.arange(3), confusion.sum(1))
    probabilities = rng.dirichlet((1, 1, 1), len(labels))
    names = [f"{index}.png" for index in range(len(labels))]
    write_predictions(folder / "predictions.csv", names, SingleLabel(tuple(CLASSES)), probabilities, labels)
    (folder / "mistakes").mkdir(exist_ok=True)
    records = []
    for index in range(4):
        pixels = rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "mistakes" / f"{index}.jpg")
        wrong = {"label": "red", "predicted": "<b>blue</b>", "probability": 0.91, "truth": 0.02}
        records.append({"image": f"{index}.jpg", "name": f"toy {index}", **wrong})
    write_json(folder / "mistakes" / "mistakes.json", {"mistakes": records})


def diagnose(folder: Path) -> None:
    """Writes diagnostics."""
    bins = [
        {
            "low": low / 10,
            "high": (low + 1) / 10,
            "confidence": low / 10 + 0.05,
            "accuracy": low / 12,
            "images": 5,
        }
        for low in range(10)
    ]
    bins[0] = {"low": 0.0, "high": 0.1, "confidence": None, "accuracy": None, "images": 0}
    (folder / "diagnostics").mkdir(exist_ok=True)
    Image.new("RGB", (48, 48), "teal").save(folder / "diagnostics" / "0.jpg")
    seen = {"image": "0.jpg", "name": "toy 0", "label": "red", "predicted": "red", "confidence": 0.8}
    content = {
        "start": "pretrained",
        "train": {"accuracy": 0.95, "log_loss": 0.2},
        "calibration": {"ece": 0.0734, "bins": bins},
        "cka": {"stem": 1.0, "blocks.1": 1.0, "blocks.11": 0.9, "top": 0.7},
        "distance": {"stem": 0.0, "blocks.1": 0.0, "blocks.11": 0.1, "top": 0.4, "head": 2.0},
        "interpolation": [
            {"alpha": alpha / 4, "train_loss": 1.2 - alpha / 5, "accuracy": 0.3 + alpha / 10, "log_loss": 1.0}
            for alpha in range(5)
        ],
        "groups": {
            "mono": {"images": 30, "accuracy": 0.8, "balanced_accuracy": 0.7},
            "poly": {"images": 29, "accuracy": 0.6, "balanced_accuracy": 0.5},
        },
        "maps": [{**seen, "method": "Grad-CAM at top"}],
        "omitted": {"interpolation": "the head is new"},
    }
    write_json(folder / "diagnostics.json", content)


@pytest.fixture(scope="session")
def make_study(make_run: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the folder of a study of depths and seeds with `done` finished trials."""

    def make(folder: Path, *, done: int | None = None, seeds: int = 3, runs: bool = False) -> Path:
        rng = np.random.default_rng(1)
        levels = [(depth, ("head", *reversed(BLOCKS))[depth]) for depth in range(5)]
        trials = [
            {
                "name": f"{depth:02}-{label}-seed{seed}",
                "label": label,
                "factors": {"depth": depth, "seed": seed},
            }
            for depth, label in levels
            for seed in range(seeds)
        ]
        study = {
            "name": "unfreeze_depth",
            "question": "How many blocks should be unfrozen on toy?",
            "factor": "depth",
            "baseline": 0,
            "ordered": True,
            "seeds": list(range(seeds)),
            "command": "transfer-jax study unfreeze_depth --images toy",
            "target": None,
            "trials": trials,
        }
        write_json(folder / "study.json", study)
        rows = [row_of(trial, rng) for trial in trials[:done]]
        for trial in trials[:done]:
            (folder / "trials" / trial["name"]).mkdir(parents=True)
            if runs:
                make_run(folder / "trials" / trial["name"], seed=trial["factors"]["seed"])
        if rows:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "table.parquet")
        if done is None:
            write_json(folder / "answer.json", answer_of(levels, rows))
        return folder

    return make


def row_of(trial: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    depth, seed = trial["factors"]["depth"], trial["factors"]["seed"]
    accuracy = 0.6 + 0.06 * depth - 0.012 * depth**2 + 0.01 * seed + float(rng.normal(0, 0.005))
    return {
        "trial": trial["name"],
        "depth": depth,
        "seed": seed,
        "accuracy": accuracy,
        "balanced_accuracy": accuracy - 0.05,
        "macro_f1": accuracy - 0.06,
        "roc_auc": accuracy + 0.1,
        "log_loss": 1 - accuracy,
        "ece": 0.05 + depth / 100,
        "train_accuracy": accuracy + depth / 20,
        "train_log_loss": 0.4,
        "trainable_parameters": 51 * 4**depth,
        "optimizer_bytes": 408 * 4**depth,
        "operations": 1e9 * 3.0**depth,
        "extract_seconds": 1.0,
        "compile_seconds": 2.0,
        "train_seconds": 3.0 * (1 + depth),
        "seconds": 5.0 * (1 + depth),
        "status": "done",
    }


def answer_of(levels: list[tuple[int, str]], rows: list[dict[str, Any]]) -> dict[str, Any]:
    found = []
    for depth, label in levels:
        values = [row["accuracy"] for row in rows if row["depth"] == depth]
        interval = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}
        found.append({"level": depth, "label": label, "n": len(values), "accuracy": interval})
    comparison = {
        "a": "blocks.1",
        "b": "head",
        "metric": "accuracy",
        "n": len(rows) // len(levels),
        "difference": 0.05,
        "low": 0.03,
        "high": 0.07,
        "p": 0.25,
        "p_holm": 0.75,
        "test": "Wilcoxon",
        "verdict": "no difference shown",
    }
    return {
        "sentences": [
            "How deep? The study trains 15 runs.",
            "The best depth is 2.",
            "It is 4 points better than the head alone.",
        ],
        "levels": found,
        "comparisons": [comparison, {**comparison, "a": "stem", "p": None, "verdict": "better"}],
        "trends": [{"metric": "accuracy", "rho": 0.4, "p": 0.1, "verdict": "no trend shown"}],
        "target": [{"level": "head", "target": 0.6, "operations": 1.2e9, "reached": True}],
    }


def chromium() -> str | None:
    """Returns the path of an installed browser."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """A headless browser."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    root = ["--no-sandbox"] if os.getuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=root)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: "Browser") -> "Iterator[Callable[..., Page]]":
    """Opens a file, waits until its charts are drawn, and fails if the page writes to the console.

    The page can load only the file itself.
    """
    contexts = []

    def visit(path: Path, *, width: int = 1280, height: int = 800, **options: Any) -> "Page":
        context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        messages: list[str] = []
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: messages.extend(_outside(request.url, path)))
        page.goto(path.absolute().as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_function("document.documentElement.dataset.charts")
        assert messages == []
        return page

    yield visit
    for context in contexts:
        context.close()


def _outside(url: str, path: Path) -> list[str]:
    inside = url.startswith(("data:", "blob:")) or url.split("#")[0] == path.absolute().as_uri()
    return [] if inside else [f"loads {url}"]
