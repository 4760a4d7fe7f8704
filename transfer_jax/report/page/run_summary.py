"""A run in three sentences: what was asked, what came out, and what it took."""

from collections.abc import Iterator

from scipy.stats import binomtest

from transfer_jax.report.page.formats import count, join_names, percent, seconds
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.storage import workdir_files


def run_summary(run: RunFiles) -> list[str]:
    """Three sentences, of a run that is under way too; each is made from the files of the run."""
    return [asked(run), answered(run), took(run)]


def asked(run: RunFiles) -> str:
    """What the config asks."""
    config = run.config
    classes = len(run.scores.get("per_class", ()))
    begun = "from random weights" if config["weights"] == "none" else "from pretrained weights"
    images = run.timeline.get("images", {}).get("train")
    on = f" on {count(images)} images" if images else ""
    return (
        f"Asked was how well {config['model']}, {begun}, tells the {f'{classes} ' if classes else ''}classes "
        f"of {config['images']} apart after training{on}: {', then '.join(_phases(run))}."
    )


def _phases(run: RunFiles) -> Iterator[str]:
    for phase in run.schedule:
        epochs = f"{phase['epochs']} epoch{'s' * (phase['epochs'] != 1)}"
        yield f"{phase['train']} for {epochs}"


def answered(run: RunFiles) -> str:
    """What the last scores say; the interval is Wilson's."""
    scores = run.scores
    if not scores:
        return f"There is no answer yet: {_progress(run)}, and no held-out image has been scored."
    images, right = scores["images"], round(scores["accuracy"] * scores["images"])
    interval = binomtest(right, images).proportion_ci(0.95, method="wilson")
    shares = {name: row["images"] / images for name, row in scores["per_class"].items()}
    commonest = max(shares, key=lambda name: shares[name])
    so_far = "" if run.finished else f"So far ({_progress(run)}): of"
    return (
        f"{so_far or 'Of'} {count(images)} held-out images it names {count(right)} rightly, "
        f"{percent(right / images)} (95% interval {percent(interval.low)} to {percent(interval.high)}); "
        f"always naming the commonest class, {commonest}, would give {percent(shares[commonest])}, "
        f"and with all classes counting alike it gets {percent(scores['balanced_accuracy'])}."
    )


def _progress(run: RunFiles) -> str:
    if not run.epochs:
        return "no epoch is over"
    last = run.epochs[-1]
    epochs = {phase["name"]: phase["epochs"] for phase in run.schedule}
    return f"after epoch {last['epoch']} of {epochs[last['phase']]} of phase {last['phase']}"


def took(run: RunFiles) -> str:
    """What trained, how long it took, and what never changed."""
    trained = run.trained_parameters
    sizes = run.timeline.get("parameters", {})
    parts = []
    if trained is not None:
        whole = sum(sizes.values())
        of = f" of {count(whole)} parameters ({percent(trained / whole)})" if whole else " parameters"
        parts.append(f"It trained {'at most ' * (len(run.freeze_records) > 1)}{count(trained)}{of}")
    goodput = run.json(workdir_files.GOODPUT)
    if goodput:
        spent = sum(goodput["seconds"].values())
        parts.append(
            f"{'' if parts else 'It '}took {seconds(spent)}, {percent(goodput['share'])} of it in steps"
        )
    kept = never_trained(run)
    if kept and run.frozen_unchanged:
        what = kept[0] if len(kept) == 1 else f"the {len(kept)} blocks from {kept[0]} to {kept[-1]}"
        parts.append(f"never changed {what}, as hashes before and after each phase prove")
    return f"{join_names(parts)}." if parts else "Nothing has been trained yet."


def never_trained(run: RunFiles) -> list[str]:
    """The blocks, input side first, that no phase trained; empty if they are no frozen prefix."""
    trained = {
        block for each in run.freeze_records for span in each["spans"] for block in span["trained"]["blocks"]
    }
    kept = [block for block in run.blocks if block not in trained]
    return kept if trained and kept == run.blocks[: len(kept)] else []
