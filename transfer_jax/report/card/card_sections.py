"""The sections of a model card on use, data, training, input and origin."""

import json
from typing import Any

from transfer_jax.counted import counted
from transfer_jax.fields import shown_object
from transfer_jax.report.card.markdown import block, code, plain, table
from transfer_jax.report.card.model_facts import ModelFacts
from transfer_jax.report.kept_epochs import kept_epoch_text
from transfer_jax.report.page.formats import rate, size
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.report.public_names import public_command, public_place
from transfer_jax.storage import workdir_files

_MOST_NAMES = 100
"""Largest number of classes that are listed."""
_NOUNS = {"multi_label": ("label", "labels"), "regression": ("quantity", "quantities")}
_CLASSES = ("class", "classes")


def summary(facts: ModelFacts, run: RunFiles | None) -> str:
    """Returns the paragraph on the network, its training and its classes."""
    if facts.base is not None:
        trained = f"fine-tuned from {code(facts.base.name)}"
    elif run is not None and run.config["weights"] == "none":
        trained = "trained from random weights"
    else:
        trained = "fine-tuned"
    images = f" on {code(public_place(str(run.config['images'])))}" if run is not None else ""
    what = counted(len(facts.task.names), *_NOUNS.get(facts.task.kind, _CLASSES))
    text = f"{code(facts.model)} ({counted(facts.parameters, 'parameter')}), {trained}{images}, for {what}"
    if len(facts.task.names) > _MOST_NAMES:
        return f"{text}."
    return f"{text}: {', '.join(map(plain, facts.task.names))}."


def use_section(facts: ModelFacts) -> str:
    """Returns the section with the code that uses the model."""
    python = f"import transfer_jax as tj\n\nmodel = tj.from_pretrained({json.dumps(facts.place)})\n"
    python += 'print(model.answers("photo.jpg"))\nprint(model.predict("photo.jpg"))'
    shell = f"pip install transfer_jax\ntransfer-jax predict {facts.place} photo.jpg"
    return "\n\n".join(["## Use", block(python, "python"), block(shell, "bash")])


def data_section(run: RunFiles) -> str:
    """Returns the section on the images: their source, their numbers, and how they were split."""
    config, parts = run.config, run.timeline.get("images", {})
    name = code(public_place(str(config["images"])))
    numbers = [
        (parts.get("train"), "to train", "updated the parameters"),
        (parts.get("held_out"), "to validate", _use_of_validation(run)),
        (parts.get("test"), "to test", "chose nothing, and were scored once"),
    ]
    rows = [[what, f"{number:,}", use] for number, what, use in numbers if number]
    text = f"The images are {name}."
    seed = config["seed"] if config.get("split_seed") is None else config["split_seed"]
    if rows:
        text += f" If their source has no split of its own, they were split in proportion with seed {seed}:"
    skipped = run.workdir / workdir_files.SKIPPED_IMAGES
    left_out = ""
    if skipped.is_file():
        number = len(skipped.read_text(encoding="utf-8", errors="replace").splitlines())
        left_out = (
            f"{counted(number, 'image')} could not be read and {'was' if number == 1 else 'were'} left out."
        )
    found = [
        "## Data",
        text,
        table(("images", "number", "use"), rows) if rows else "",
        left_out,
        _hashes(run),
    ]
    return "\n\n".join(part for part in found if part)


def _use_of_validation(run: RunFiles) -> str:
    chose = next((phase["kept_by"] for phase in run.phases if phase.get("kept_by")), "")
    chose = f"chose the epochs that are kept, by {chose.replace('_', ' ')}" if chose else ""
    controlled = any(phase.get("controller") for phase in run.schedule)
    steered = "steered the frozen depth" if controlled else ""
    return " and ".join(part for part in (chose, steered) if part) or "were scored only"


def _hashes(run: RunFiles) -> str:
    start = run.json(workdir_files.START)
    parts = [(part, start.get(key)) for part, key in _PARTS]
    texts = [f"{part} images {code(each['content'][:16])}" for part, each in parts if each]
    return f"First digits of the SHA-256 of their content: {', '.join(texts)}." if texts else ""


_PARTS = (("training", "train"), ("validation", "evaluation"), ("test", "test"))


def frozen_section(run: RunFiles) -> str:
    """Returns the section on the phases: what each trained, what was frozen, and how that was checked."""
    if not run.freeze_records:
        return ""
    phases = {phase["name"]: phase for phase in run.schedule}
    rows = [
        _span_row(run, phases.get(each["phase"], {}), each, span)
        for each in run.freeze_records
        for span in each["spans"]
    ]
    columns = ("phase", "trainable blocks", "frozen blocks", "trainable parameters", "steps")
    columns += ("learning rate", "optimizer", "frozen arrays unchanged")
    checked = (
        "Hashes before and after each phase show that no frozen parameter and no frozen statistic changed."
        if run.frozen_unchanged
        else "NOT all frozen parameters and statistics have the same hash before and after."
    )
    choices = [text for phase in run.phases if (text := kept_epoch_text(phase))]
    kept = "\n".join(f"- {plain(text)}" for text in choices)
    return "\n\n".join(
        part for part in ("## Frozen and trained", checked, table(columns, rows), kept) if part
    )


def _span_row(
    run: RunFiles, phase: dict[str, Any], record: dict[str, Any], span: dict[str, Any]
) -> list[str]:
    trained = set(span["trained"]["blocks"])
    frozen = [name for name in run.blocks if name not in trained]
    before, after = span["frozen"]["sha256_before"], span["frozen"]["sha256_after"]
    first, last = span["steps"]
    rates = [value for value in span["rates"]["first"].values() if value > 0]
    optimizer = phase.get("optimizer")
    unchanged = f"{span['frozen']['arrays']:,}, {code(after[:8])}" if before == after else "NO"
    return [
        plain(record["phase"]),
        _listed([name for name in run.blocks if name in trained] or sorted(trained)),
        _listed(frozen),
        f"{span['trained']['parameters']:,}",
        f"{last - first:,}",
        rate(max([*rates, phase.get("learning_rate") or 0.0])),
        "" if optimizer is None else plain(shown_object(optimizer)),
        unchanged,
    ]


def _listed(blocks: list[str]) -> str:
    """Returns names of blocks: the first and the last one of many."""
    if len(blocks) > 3:
        return f"{code(blocks[0])} to {code(blocks[-1])} ({len(blocks)})"
    return ", ".join(map(code, blocks)) or "none"


def base_section(facts: ModelFacts) -> str:
    """Returns the section on the pretrained weights and their licence."""
    base = facts.base
    if base is None:
        return ""
    lines = [f"- weights: {code(base.name)}"]
    if base.address:
        lines.append(f"- file: {code(base.address)}")
    if base.sha256:
        lines.append(f"- SHA-256 of the arrays: {code(base.sha256)}")
    lines.append(f"- licence: {plain(base.licence) if base.licence else 'unknown'}")
    text = (
        "The licence of the pretrained weights applies to what is made of them."
        if base.licence
        else "Find out the licence of the pretrained weights before you publish or sell what is made of them."
    )
    return "\n\n".join(["## Pretrained weights", "\n".join(lines), text])


def input_section(facts: ModelFacts) -> str:
    """Returns the section on the preprocessing of the input images."""
    found = facts.preprocessing
    pixels = [f"{' '.join(f'{value:g}' for value in values)}" for values in (found.mean, found.std)]
    rows = [
        ["image size", f"{found.image_size} × {found.image_size} pixels"],  # noqa: RUF001
        ["crop", f"central {found.crop_fraction:.1%} of the shorter side"],
        ["interpolation", found.interpolation],
        ["mean, 0 to 255", pixels[0]],
        ["standard deviation, 0 to 255", pixels[1]],
        ["channel order", found.channel_order.upper()],
    ]
    return f"## Input\n\n{table(('preprocessing', 'value'), rows)}"


def reproduce_section(run: RunFiles) -> str:
    """Returns the section with the command, the versions and the machine."""
    found = run.json(workdir_files.ENVIRONMENT)
    parts = ["## Reproduce"]
    if found.get("command"):
        parts.append(block(public_command(found["command"]), "bash"))
    elif found:
        parts.append("The run was started from Python.")
    versions = ", ".join(f"{plain(name)} {plain(each)}" for name, each in found.get("versions", {}).items())
    devices = ", ".join(f"{each['count']} x {plain(each['kind'])}" for each in found.get("devices", []))
    memory = f", {size(found['memory'])} of memory" if found.get("memory") else ""
    if devices:
        parts.append(f"Trained on {devices}{memory}, seed {run.config['seed']}.")
    if versions:
        parts.append(f"Versions: Python {plain(found.get('python', ''))}, {versions}.")
    return "\n\n".join(parts) if len(parts) > 1 else ""
