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
from transfer_jax.report.page.formats import count, percent, seconds
from transfer_jax.report.page.html import write_page
from transfer_jax.report.page.inline_images import inline_images
from transfer_jax.report.page.reproduce_section import reproduce_section
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.page.run_summary import run_summary
from transfer_jax.report.page.schedule_section import curve_charts, schedule_parts
from transfer_jax.storage import workdir_files


def write_run_report(workdir: Path, path: Path | None = None) -> Path:
    """Writes the report of a run, finished or under way, from the files of its workdir.

    Args:
        workdir: The run's folder.
        path: The file; `report.html` in the workdir, if not given.

    Raises:
        FileNotFoundError: If the folder is not one of a run.
        ValueError: If a file in it is damaged.
    """
    return write_page(run_page(RunFiles.from_workdir(workdir)), path or workdir / workdir_files.REPORT)


def run_page(run: RunFiles) -> Page:
    """The report of a run; a section is there if its files are."""
    config = run.config
    state = "finished" if run.finished else "not finished"
    sections = [
        Section("Asked and answered", [Text(run_summary(run), lead=True), *_tiles(run)]),
        _schedule(run),
        _curves(run),
        _classes(run),
        _mistakes(run),
        calibration_section(run),
        group_section(run),
        block_section(run),
        saliency_section(run),
        _time(run),
        _frozen(run),
        reproduce_section(run),
    ]
    subtitle = f"A run of {config['model']} on {config['images']}, seed {config['seed']}, {state}"
    return Page(run.name, subtitle, [section for section in sections if section and section.parts])


def _tiles(run: RunFiles) -> list[Tiles]:
    scores = run.scores
    if not scores:
        return []
    tiles = [Tile("accuracy", percent(scores["accuracy"]), f"of {count(scores['images'])} held-out images")]
    if "weighted_accuracy" in scores:
        tiles.append(
            Tile("weighted accuracy", percent(scores["weighted_accuracy"]), "by the images' weights")
        )
    tiles.append(
        Tile("balanced accuracy", percent(scores["balanced_accuracy"]), "mean recall of the classes")
    )
    tiles.append(Tile("macro F1", percent(scores["macro_f1"]), "mean F1 of the classes"))
    if scores.get("roc_auc") is not None:
        tiles.append(Tile("ROC AUC", f"{scores['roc_auc']:.3f}", "0.5 is chance"))
    tiles.append(Tile("log loss", f"{scores['log_loss']:.3f}", "lower is better"))
    calibration = run.json(workdir_files.DIAGNOSTICS).get("calibration")
    if calibration:
        tiles.append(Tile("calibration error", percent(calibration["ece"]), "ECE, lower is better"))
    train = run.json(workdir_files.DIAGNOSTICS).get("train") or run.training_scores
    if train:
        gap = train["accuracy"] - scores["accuracy"]
        note = f"{percent(train['accuracy'])} on training images, less held-out"
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
        [name, row["precision"], row["recall"], row["f1"], row["images"]]
        for name, row in scores["per_class"].items()
    ]
    table = Table("Held-out images by class", columns, rows)
    return Section("Classes", [Charts([confusion(list(scores["per_class"]), scores["confusion"])]), table])


def _mistakes(run: RunFiles) -> Section | None:
    found: list[dict[str, Any]] = run.json(
        f"{workdir_files.MISCLASSIFIED}/{workdir_files.MISCLASSIFIED_LIST}"
    ).get("mistakes", [])
    if not found:
        return None
    images = [
        Image(
            source,
            f"Held-out image {each['name']}, a {each['label']} taken for {each['predicted']}",
            (f"{each['label']}, taken for {each['predicted']}", f"{percent(each['probability'])} sure"),
        )
        for each, source in inline_images(run.workdir / workdir_files.MISCLASSIFIED, found)
    ]
    wrong = sum(map(sum, run.scores["confusion"])) - sum(
        line[index] for index, line in enumerate(run.scores["confusion"])
    )
    said = f"Of {count(wrong)} mistakes on held-out images, those whose true class got the least probability."
    return Section("Mistakes", [Text([said]), Images(images)])


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
        "Where the time went",
        "Wall time of all sessions of the run, by what it was spent on.",
        rows,
        names=names,
        name=Column("part"),
        value=Column("seconds", "seconds"),
        shown="shown",
    )
    verdict = goodput["verdict"]
    parts: list[Any] = [Text([f"{verdict[:1].upper()}{verdict[1:]}."]), Charts([chart])]
    if run.phases:
        parts.append(_phase_times(run))
    return Section("Time", parts)


def _phase_times(run: RunFiles) -> Table:
    columns = [Column("phase"), Column("features at"), Column("rows extracted", "count")]
    columns += [Column(f"{name}", "seconds") for name in ("extract", "compile", "train")]
    columns += [Column("images a second", "count"), Column("operations a step", "operations")]
    columns += [Column("optimizer state", "bytes")]
    names = ("extracted", "extract_seconds", "compile_seconds", "train_seconds", "images_per_second")
    rows = [
        [
            phase["name"],
            phase["boundary"] or "trains on images",
            *(phase[name] for name in (*names, "step_flops", "optimizer_bytes")),
        ]
        for phase in run.phases
    ]
    return Table("What the phases took", columns, rows, sortable=False)


def _frozen(run: RunFiles) -> Section | None:
    if not run.freeze_records:
        return None
    columns = [Column("phase"), Column("steps"), Column("trained"), Column("parameters", "count")]
    columns += [Column("frozen arrays", "count"), Column("SHA-256 before", "code"), Column("after", "code")]
    columns += [Column("same")]
    rows = []
    for each in run.freeze_records:
        for span in each["spans"]:
            before, after = span["frozen"]["sha256_before"], span["frozen"]["sha256_after"]
            first, last = span["steps"]
            rows.append([each["phase"], f"{first} to {last}", ", ".join(span["trained"]["blocks"])])
            rows[-1] += [span["trained"]["parameters"], span["frozen"]["arrays"]]
            rows[-1] += [before[:16], after[:16], before == after]
    said = (
        "All that was frozen, parameters and statistics, has the same SHA-256 before and after each stretch."
        if run.frozen_unchanged
        else "NOT all that was frozen has the same SHA-256 before and after: see the table."
    )
    table = Table("Proof of what stayed frozen", columns, rows, sortable=False)
    return Section("What stayed frozen", [Text([f"{said} The files are in certificates/."]), table])
