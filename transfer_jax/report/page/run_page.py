"""The report of one run."""

from pathlib import Path
from typing import Any

from transfer_jax.report.page.charts import bars, confusion
from transfer_jax.report.page.diagnostics_sections import (
    block_section,
    calibration_section,
    group_section,
    saliency_section,
)
from transfer_jax.report.page.elements import (
    Charts,
    Column,
    Image,
    Images,
    Page,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
)
from transfer_jax.report.page.formats import percent, plural, seconds
from transfer_jax.report.page.html import write_page
from transfer_jax.report.page.inline_images import inline_images
from transfer_jax.report.page.reproduce_section import reproduce_section
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.run_summary import run_summary
from transfer_jax.report.page.schedule_section import schedule_parts
from transfer_jax.report.page.training_curves import curve_charts
from transfer_jax.storage import workdir_files


def write_run_report(workdir: Path, path: Path | None = None) -> Path:
    """Writes the report of a run, finished or not, from the files of its workdir.

    Args:
        workdir: The workdir of the run.
        path: The HTML file; `report.html` in the workdir by default.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: If the folder is not a workdir.
        ValueError: If a file in it is damaged.
    """
    return write_page(run_page(RunFiles.from_workdir(workdir)), path or workdir / workdir_files.REPORT)


def run_page(run: RunFiles) -> Page:
    """Returns the report of a run, with a section for each kind of files that the run has."""
    config = run.config
    state = "finished" if run.finished else "not finished"
    sections = [
        Section("Summary", [Text(run_summary(run), lead=True), *_tiles(run)]),
        _schedule(run),
        _curves(run),
        _classes(run),
        _misclassified(run),
        calibration_section(run),
        group_section(run),
        block_section(run),
        saliency_section(run),
        _time(run),
        _frozen(run),
        reproduce_section(run),
    ]
    subtitle = f"{config['model']} on {config['images']}, seed {config['seed']}, {state}"
    return Page(run.name, subtitle, [section for section in sections if section and section.parts])


def _tiles(run: RunFiles) -> list[Tiles]:
    scores = run.scores
    if not scores:
        return []
    tiles = [
        Tile("accuracy", percent(scores["accuracy"]), f"on {plural(scores['images'], 'validation image')}")
    ]
    if "weighted_accuracy" in scores:
        tiles.append(
            Tile("weighted accuracy", percent(scores["weighted_accuracy"]), "by the weights of the images")
        )
    tiles.append(
        Tile("balanced accuracy", percent(scores["balanced_accuracy"]), "mean recall of the classes")
    )
    tiles.append(Tile("macro F1", percent(scores["macro_f1"]), "mean F1 of the classes"))
    if scores.get("roc_auc") is not None:
        tiles.append(Tile("ROC AUC", f"{scores['roc_auc']:.3f}", "0.5 is chance level"))
    tiles.append(Tile("log loss", f"{scores['log_loss']:.3f}", "lower is better"))
    calibration = run.json(workdir_files.DIAGNOSTICS).get("calibration")
    if calibration:
        tiles.append(Tile("calibration error", percent(calibration["ece"]), "ECE; lower is better"))
    train = run.json(workdir_files.DIAGNOSTICS).get("train") or run.training_scores
    if train:
        gap = train["accuracy"] - scores["accuracy"]
        note = f"training accuracy {percent(train['accuracy'])} minus validation accuracy"
        tiles.append(Tile("overfit gap", f"{100 * gap:+.1f} points", note))
    return [Tiles(tiles)]


def _schedule(run: RunFiles) -> Section:
    return Section("Schedule", schedule_parts(run))


def _curves(run: RunFiles) -> Section:
    charts = curve_charts(run)
    return Section("Curves", [Charts(charts)] if charts else [])


def _classes(run: RunFiles) -> Section | None:
    scores = run.scores
    if not scores:
        return None
    columns = [Column("class"), Column("precision", "percent"), Column("recall", "percent")]
    columns += [Column("F1", "percent"), Column("images", "count")]
    rows = [
        [
            name,
            *(row[kind] if row["images"] else "-" for kind in ("precision", "recall", "f1")),
            row["images"],
        ]
        for name, row in scores["per_class"].items()
    ]
    table = Table("Scores by class, on validation images", columns, rows)
    return Section("Classes", [Charts([confusion(list(scores["per_class"]), scores["confusion"])]), table])


def _misclassified(run: RunFiles) -> Section | None:
    found: list[dict[str, Any]] = run.json(
        f"{workdir_files.MISCLASSIFIED}/{workdir_files.MISCLASSIFIED_LIST}"
    ).get("mistakes", [])
    if not found:
        return None
    images = [
        Image(
            source,
            f"Validation image {each['name']}: true class {each['label']}, predicted {each['predicted']}",
            (
                f"{each['label']}, predicted as {each['predicted']}",
                f"with probability {percent(each['probability'])}",
            ),
        )
        for each, source in inline_images(run.workdir / workdir_files.MISCLASSIFIED, found)
    ]
    wrong = sum(map(sum, run.scores["confusion"])) - sum(
        line[index] for index, line in enumerate(run.scores["confusion"])
    )
    shown = "The images below have the lowest probability of the true class, lowest first."
    text = f"{plural(wrong, 'validation image')} {'is' if wrong == 1 else 'are'} misclassified. {shown}"
    return Section("Misclassified images", [Text([text]), Images(images)])


def _time(run: RunFiles) -> Section | None:
    goodput = run.json(workdir_files.GOODPUT)
    if not goodput:
        return None
    spent = {part.replace("_", " "): value for part, value in goodput["seconds"].items() if value > 0}
    total = sum(spent.values()) or 1.0
    names = sorted(spent, key=lambda part: -spent[part])
    rows = [
        {"name": part, "value": spent[part], "shown": f"{seconds(spent[part])} · {spent[part] / total:.0%}"}
        for part in names
    ]
    chart = bars(
        "Time by activity",
        "Wall time of all sessions of the run, by activity.",
        rows,
        names=names,
        name=Column("activity"),
        value=Column("seconds", "seconds"),
        shown="shown",
    )
    verdict = goodput["verdict"]
    parts: list[Any] = [Text([f"{verdict[:1].upper()}{verdict[1:]}."]), Charts([chart])]
    if run.phases:
        parts.append(_phase_times(run))
    return Section("Time", parts)


def _phase_times(run: RunFiles) -> Table:
    columns = [Column("phase"), Column("cached features at"), Column("extracted rows", "count")]
    columns += [Column(name, "seconds") for name in ("extraction", "compilation", "training")]
    columns += [Column("images per second", "count"), Column("operations per step", "operations")]
    columns += [Column("optimizer state", "bytes")]
    names = ("extracted", "extract_seconds", "compile_seconds", "train_seconds", "images_per_second")
    rows = [
        [
            phase["name"],
            phase["boundary"] or "none: trains on images",
            *(phase[name] for name in (*names, "step_flops", "optimizer_bytes")),
        ]
        for phase in run.phases
    ]
    return Table("Time and cost by phase", columns, rows, sortable=False)


def _frozen(run: RunFiles) -> Section | None:
    if not run.freeze_records:
        return None
    columns = [
        Column("phase"),
        Column("steps"),
        Column("trained blocks"),
        Column("trained parameters", "count"),
        Column("frozen arrays", "count"),
        Column("SHA-256 before", "code"),
        Column("SHA-256 after", "code"),
        Column("unchanged"),
    ]
    rows = []
    for each in run.freeze_records:
        for span in each["spans"]:
            before, after = span["frozen"]["sha256_before"], span["frozen"]["sha256_after"]
            first, last = span["steps"]
            rows.append([each["phase"], f"{first} to {last}", ", ".join(span["trained"]["blocks"])])
            rows[-1] += [span["trained"]["parameters"], span["frozen"]["arrays"]]
            rows[-1] += [before[:16], after[:16], before == after]
    hashes = "the same SHA-256 hash before and after training"
    text = (
        f"All frozen parameters and statistics have {hashes}."
        if run.frozen_unchanged
        else f"NOT all frozen parameters and statistics have {hashes}; see the table."
    )
    text = f"{text} The hashes are in {workdir_files.FREEZE_RECORDS}/."
    table = Table("Hashes of the frozen parameters and statistics", columns, rows, sortable=False)
    return Section("Freeze checks", [Text([text]), table])
