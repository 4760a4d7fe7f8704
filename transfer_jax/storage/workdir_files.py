"""The names of all files and folders in a workdir, and of those in the folder of a study."""

from pathlib import Path

CONFIG = "config.json"
"""The `TrainConfig` of the run."""
EARLIER_CONFIGS = "earlier_configs.json"
"""The configs before the last one of `--force-config`, each with the step until which it was used."""
START = "start.json"
"""The weights, the preprocessing and the images that the run started with."""
LOCK, OWNER = ".lock", "in_use.json"
"""The lock of a training, which remains, and its host, process and start while it trains."""
CHECKPOINTS = "checkpoints"
"""A folder: the newest checkpoints."""
FEATURES = "features"
"""A folder: cached features, unless `feature_dir` names another. It is not mirrored to object storage."""
METRICS = "metrics.jsonl"
"""A line for each epoch, validation, measurement and freeze check."""
PHASES = "phases.json"
"""The results of the phases that have ended."""
TIMELINE, TIMELINE_PLOT = "timeline.json", "timeline.png"
"""The learning rate of each block by epoch, as planned and as executed."""
FREEZE_RECORDS = "certificates"
"""A folder: one JSON file for each phase, with the hashes of its frozen arrays."""
GOODPUT = "goodput.json"
"""The wall time by activity."""
ENVIRONMENT = "environment.json"
"""Software, machine and command of the run."""
DEFAULTS = "choices.json"
"""The defaults that were chosen for the user, each with its reason."""
QUALITY = "findings.json"
"""The results of the quality checks of the images."""
SKIPPED_IMAGES = "skipped_images.txt"
"""One line for each image that was left out, with the reason."""
MODEL = "model"
"""A folder: the trained model."""
PREDICTIONS = "predictions.csv"
"""The predictions of the validation images; in Parquet the same name with `.parquet`."""
TEST_PREDICTIONS = "test_predictions.csv"
"""The predictions of the test images, if there are any; in Parquet the same name with `.parquet`."""
CLASSES = "classes.json"
"""The classes of predictions that have only the most probable ones of each image."""
CLASS_SCORES, TEST_CLASS_SCORES = "class_scores.npz", "test_class_scores.npz"
"""The scores of each of many classes on the validation and the test images, and the confused pairs."""
CURVES, CONFUSION = "curves.png", "confusion.png"
"""Plots: loss and accuracy by epoch; the confusion matrix."""
MISCLASSIFIED, MISCLASSIFIED_LIST = "mistakes", "mistakes.json"
"""A folder of misclassified images, and the list inside it."""
DIAGNOSTICS, SALIENCY_MAPS = "diagnostics.json", "diagnostics"
"""The results of `transfer-jax diagnose`, and the folder of its saliency maps."""
REPORT = "report.html"
"""The report of a run or of a study."""
PROFILE = "profile"
"""A folder: the trace that `--profile` records."""
TRACKERS = "trackers.json"
"""The ids of the run in its experiment trackers."""
TENSORBOARD = "tensorboard"
"""A folder: the event files of TensorBoard."""

SEARCH = "search.json"
"""The record of a search within a budget."""
BEST_CONFIG = "best_config.json"
"""The config of the best run of a search, which trains it again without a search."""

STUDY = "study.json"
"""The arms, seeds and configs of a study."""
TRIALS = "trials"
"""A folder with a workdir for each trial."""
ANALYSIS = "answer.json"
"""The analysis of a study."""
TABLE = "table.parquet"
"""A row for each finished trial."""
WORKER_LOGS = "workers"
"""A folder: the logs of the workers of a study."""
SHARED_PHASES = "beginnings"
"""A folder: runs of the phases that several trials have in common. It is deleted when the study ends."""
TRIAL_LOCKS = ".locks"
"""A folder: a lock file for each arm and trial that a worker has claimed."""
TRIAL_ROW, TRIAL_ERROR, TRIAL_CLAIM = "row.json", "error.json", "claim.json"
"""Files of a trial: its row of the table, the error it failed with, and the worker that last claimed it."""

_NEEDED = (
    *(CONFIG, EARLIER_CONFIGS, START, METRICS, PHASES, TIMELINE, GOODPUT, ENVIRONMENT, DEFAULTS, QUALITY),
    *(SKIPPED_IMAGES, PREDICTIONS, TEST_PREDICTIONS, MODEL, CHECKPOINTS, FEATURES, FREEZE_RECORDS),
    *(DIAGNOSTICS, TRACKERS, CLASSES, CLASS_SCORES, TEST_CLASS_SCORES),
    *(name.replace(".csv", ".parquet") for name in (PREDICTIONS, TEST_PREDICTIONS)),
    *(STUDY, ANALYSIS, TABLE, TRIALS, SEARCH, BEST_CONFIG),
)
"""Files and folders that a run or a study is read from."""


def predictions_file(workdir: Path, name: str = PREDICTIONS) -> Path:
    """Returns the file of predictions that a workdir has: CSV, or Parquet if it has only that.

    Args:
        workdir: The workdir of a run.
        name: `PREDICTIONS` or `TEST_PREDICTIONS`.
    """
    file, parquet = workdir / name, (workdir / name).with_suffix(".parquet")
    return parquet if parquet.is_file() and not file.is_file() else file


def check_not_of_run(out: Path) -> None:
    """Checks that a file to write does not replace a file that a run or a study is read from.

    Raises:
        ValueError: If it does.
    """
    path = out.resolve()
    for folder in path.parents if path.is_file() else ():
        is_run = (folder / CONFIG).is_file() and (folder / METRICS).is_file()
        if (is_run or (folder / STUDY).is_file()) and path.relative_to(folder).parts[0] in _NEEDED:
            raise ValueError(f"{out} is a file of the run in {folder}, which needs it; choose another name")
