"""Which of timm's published checkpoints load here?

    python benchmarks/timm_coverage.py --hub 200
    python benchmarks/timm_coverage.py --names names.txt --out coverage.json
    python benchmarks/timm_coverage.py --markdown coverage.md

A checkpoint loads if the catalogue has it, which lists the weights of all networks that `parity.py` compares
with timm's. Without an option, the program counts all checkpoints in the installed timm, and those that
`timm.create_model(NAME, pretrained=True)` takes. `--hub` asks the Hugging Face hub for the checkpoints with
the most downloads in the last 30 days, and `--names` reads them from a file, most used first.
"""

import argparse
import collections
import datetime
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contest import print_rows, write_report
from parity import markdown

from transfer_jax.weights.specs import specs

PACKAGES = ("timm",)
_REPOSITORY = re.compile(r"hf://(?P<repository>[^/]+/[^/@]+)")


def known_here() -> set[str]:
    """Returns the repositories of the hub that the catalogue has weights of."""
    found = (_REPOSITORY.match(spec.address) for spec in specs())
    return {each["repository"] for each in found if each}


def checkpoints() -> dict[str, tuple[str, bool]]:
    """Returns the repositories of timm's checkpoints, each with the file of its network in timm.

    The second value is whether `timm.create_model(NAME, pretrained=True)` takes the checkpoint.
    """
    import timm

    found = {}
    for name in timm.list_pretrained():
        config: Any = timm.models.get_pretrained_cfg(name)
        if config is None or not config.hf_hub_id or config.custom_load == "hf":
            continue
        architecture = name.partition(".")[0]
        default: Any = timm.models.get_pretrained_cfg(architecture)
        file = timm.models.model_entrypoint(architecture).__module__.rpartition(".")[2]
        found[config.hf_hub_id] = (file, config.tag == default.tag)
    return found


def most_downloaded(count: int) -> list[str]:
    """Returns timm's repositories with the most downloads in the last 30 days, most used first.

    Raises:
        ConnectionError: If the hub does not respond.
    """
    from huggingface_hub import HfApi

    return [model.id for model in HfApi().list_models(author="timm", sort="downloads", limit=count)]


def by_file(all_of_timm: dict[str, tuple[str, bool]], known: set[str]) -> list[dict[str, str]]:
    """Returns a row for each file of networks in timm, with the most checkpoints first."""
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for repository, (file, _) in all_of_timm.items():
        counts[file][0] += 1
        counts[file][1] += repository in known
    rows = sorted(counts.items(), key=lambda item: (-item[1][0], item[0]))
    return [
        {"networks in timm": file, "checkpoints": str(total), "load": str(loaded)}
        for file, (total, loaded) in rows
    ]


def share(what: str, repositories: Iterable[str], known: set[str]) -> dict[str, str]:
    """Returns a row with the number of repositories and of those that load."""
    listed = list(repositories)
    loaded = sum(repository in known for repository in listed)
    return {"checkpoints": what, "number": f"{len(listed):,}", "load": f"{loaded:,}"}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--hub", type=int, metavar="N", help="count the N most downloaded checkpoints")
    source.add_argument("--names", type=Path, help="text file with a name a line, such as vgg16.tv_in1k")
    parser.add_argument("--out", type=Path, help="JSON file with all rows, and with what does not load")
    parser.add_argument("--markdown", type=Path, help="file to write the tables for the docs to")
    arguments = parser.parse_args()
    known, all_of_timm = known_here(), checkpoints()
    defaults = [repository for repository, (_, default) in all_of_timm.items() if default]
    rows = [
        share("all", all_of_timm, known),
        share("the default of each network", defaults, known),
    ]
    missing = [repository for repository in defaults if repository not in known]
    if arguments.hub or arguments.names:
        if arguments.hub:
            used = most_downloaded(arguments.hub)
        else:
            lines = arguments.names.read_text(encoding="utf-8").split()
            used = [line if "/" in line else f"timm/{line}" for line in lines]
        rows.insert(0, share(f"the {len(used)} most used", used, known))
        missing = [repository for repository in used if repository not in known]
    title = f"Checkpoints of timm that load here, {datetime.date.today()}"
    files = by_file(all_of_timm, known)
    print_rows(title, rows)
    print_rows("By file of timm", files)
    print("Do not load:", ", ".join(missing) or "none")
    if arguments.out:
        write_report(title, [*rows, *files], arguments.out, packages=PACKAGES)
        report = json.loads(arguments.out.read_text(encoding="utf-8"))
        arguments.out.write_text(json.dumps({**report, "missing": missing}, indent=1), encoding="utf-8")
    if arguments.markdown:
        arguments.markdown.write_text(f"{markdown(rows)}\n{markdown(files)}", encoding="utf-8")


if __name__ == "__main__":
    main()
