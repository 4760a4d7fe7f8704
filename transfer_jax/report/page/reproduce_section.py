"""The section on where a report comes from: software, machine, and how to make its run again."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from transfer_jax.report.page.elements import Code, Column, Part, Section, Table, Text
from transfer_jax.report.page.formats import size
from transfer_jax.report.page.run_files import RunFiles
from transfer_jax.storage import workdir_files


def reproduce_section(run: RunFiles) -> Section:
    """Environment, command and config of a run."""
    found = run.json(workdir_files.ENVIRONMENT)
    return Section(
        "To repeat it",
        [
            *_commands(run, found),
            *environment_parts(found),
            Code("The config, all defaults written out", json.dumps(run.config, indent=1), folded=True),
        ],
    )


def _commands(run: RunFiles, found: Mapping[str, Any]) -> list[Part]:
    parts: list[Part] = []
    if found.get("command"):
        parts.append(Code("The command", shlex.join(found["command"])))
    folder = run.workdir.as_posix()
    again = f"{folder}-again"
    if found.get("images_given"):
        said = "The images were given as arrays, from Python; with the same ones, this trains it again."
        call = (
            "import json\nfrom transfer_jax import TrainConfig, fit\n\n"
            f"config = TrainConfig.from_json(json.load(open({folder + '/config.json'!r})))\n"
            f"fit(config, {again!r}, dataset=images)"
        )
        return [Text([said]), Code("From Python", call)]
    line = shlex.join(["transfer-jax", "train", f"{folder}/config.json", "--workdir", again])
    return [*parts, Code("The same, from the config as it was resolved", line)]


def environment_parts(found: Mapping[str, Any]) -> list[Part]:
    """What `environment.json` says, as a table."""
    if not found:
        return []
    devices = [f"{each['count']} x {each['kind']} ({each['platform']})" for each in found.get("devices", [])]
    rows = [
        ["begun", found.get("time")],
        ["devices", ", ".join(devices) or None],
        ["processes", str(found["processes"]) if "processes" in found else None],
        ["machine", found.get("machine")],
        ["processor cores", str(found["cores"]) if "cores" in found else None],
        ["memory", size(found["memory"]) if "memory" in found else None],
        ["Python", found.get("python")],
        *([name, version] for name, version in found.get("versions", {}).items()),
        *([name, value] for name, value in found.get("variables", {}).items()),
    ]
    known = [row for row in rows if row[1]]
    return [Table("Software and machine", [Column("what"), Column("which", "code")], known, sortable=False)]
