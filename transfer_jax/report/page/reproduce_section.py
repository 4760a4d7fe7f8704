"""The section on how to reproduce a run: commands, config, software and machine."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from transfer_jax.report.page.elements import Code, Column, Part, Section, Table, Text
from transfer_jax.report.page.formats import size
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.storage import workdir_files


def reproduce_section(run: RunFiles) -> Section:
    """Returns the section with the commands, the start, the environment and the config of a run."""
    found = run.json(workdir_files.ENVIRONMENT)
    return Section(
        "Reproduce",
        [
            *_commands(run, found),
            *_earlier_configs(run),
            *_start(run),
            *environment_parts(found),
            Code("Config, with all defaults", json.dumps(run.config, indent=1), folded=True),
        ],
    )


def _commands(run: RunFiles, found: Mapping[str, Any]) -> list[Part]:
    parts: list[Part] = []
    if found.get("command"):
        parts.append(Code("Command", shlex.join(found["command"])))
    folder = run.workdir.as_posix()
    again = f"{folder}-again"
    if found.get("images_given"):
        text = "The images were passed as arrays from Python. This code repeats the run with the same images."
        call = (
            "import json\nfrom transfer_jax import TrainConfig, fit\n\n"
            f"config = TrainConfig.from_json(json.load(open({f'{folder}/{workdir_files.CONFIG}'!r})))\n"
            f"fit(config, {again!r}, dataset=images)"
        )
        return [Text([text]), Code("Python code", call)]
    line = shlex.join(["transfer-jax", "train", f"{folder}/{workdir_files.CONFIG}", "--workdir", again])
    return [*parts, Code("Command with the resolved config", line)]


def _earlier_configs(run: RunFiles) -> list[Part]:
    """Returns a text on the configs before `--force-config`; nothing if there was one config only."""
    lines = [
        f"Until step {each['until_step']:,}, the run had another config: {'; '.join(each['changes'])}."
        for each in run.json(workdir_files.EARLIER_CONFIGS)
    ]
    return [Text([*lines, "The last config alone does not repeat the run."])] if lines else []


def _start(run: RunFiles) -> list[Part]:
    """Returns a table of the weights and the images in `start.json`; nothing if there is none."""
    found = run.json(workdir_files.START)
    if not found:
        return []
    rows = [
        ["weights", found["weights"]],
        ["file", found["file"] if found["file"] != found["weights"] else ""],
        ["SHA-256 of the arrays", found["sha256"]],
        ["SHA-256 of the training images", found["train"]["content"]],
        ["SHA-256 of the validation images", found["evaluation"]["content"]],
    ]
    known = [row for row in rows if row[1]]
    return [
        Table(
            "Weights and images", [Column("item"), Column("value", "code")], known, sortable=False, pairs=True
        )
    ]


def environment_parts(found: Mapping[str, Any]) -> list[Part]:
    """Returns a table of the content of `environment.json`; nothing if there is none."""
    if not found:
        return []
    devices = [f"{each['count']} x {each['kind']} ({each['platform']})" for each in found.get("devices", [])]
    rows = [
        ["started", found["time"].replace("T", " ").replace("+00:00", " UTC") if "time" in found else None],
        ["devices", ", ".join(devices) or None],
        ["processes", str(found["processes"]) if "processes" in found else None],
        ["machine", found.get("machine")],
        ["CPU cores", str(found["cores"]) if "cores" in found else None],
        ["memory", size(found["memory"]) if "memory" in found else None],
        ["Python", found.get("python")],
        *([name, version] for name, version in found.get("versions", {}).items()),
        *([name, value] for name, value in found.get("variables", {}).items()),
    ]
    known = [row for row in rows if row[1]]
    return [
        Table(
            "Software and machine",
            [Column("item"), Column("value", "code")],
            known,
            sortable=False,
            pairs=True,
        )
    ]
