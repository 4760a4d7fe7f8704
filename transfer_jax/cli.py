"""The command line: `transfer-jax demo | train | plan | evaluate | …`, its errors and its exit codes."""

import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.logging import RichHandler
from rich.markup import escape

from transfer_jax.commands import check, diagnose, features, models, plan, report, runs, studies
from transfer_jax.commands.config_options import config_place, given_fields, preset, takes_config
from transfer_jax.config import TrainConfig, load_config, shipped_configs
from transfer_jax.distributed import processes
from transfer_jax.distributed.launch import PREEMPTED
from transfer_jax.malloc import keep_freed_memory
from transfer_jax.report.console import BARS, CONSOLE, OUT
from transfer_jax.runs.interrupt import Terminated, terminable
from transfer_jax.studies.presets import default_config

COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": runs.demo,
    "train": runs.train,
    "launch": runs.launch,
    "check": check.check,
    "plan": plan.plan,
    "find-rate": plan.find_rate,
    "evaluate": runs.evaluate,
    "predict": runs.predict,
    "diagnose": diagnose.diagnose,
    "report": report.report,
    "extract": features.extract,
    "heads": features.heads,
    "study": studies.study,
    "work": studies.work,
    "models": models.models,
    "inspect": models.inspect,
    "export": models.export,
}
"""By name; their signatures are the options, their docstrings the help."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Returns:
        The exit code: 0; 1 where another process of the run was lost; 2 for what the user can mend; 75 after
        SIGTERM, with a checkpoint where there is anything to save; 130 after Ctrl-C, likewise.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(
        format="%(message)s", handlers=[RichHandler(console=CONSOLE, show_time=False, show_path=False)]
    )
    keep_freed_memory()
    _use_compilation_cache()
    try:
        with terminable():
            if arguments[:1] in (["train"], ["extract"]):
                _join()
            elif arguments[:1] == ["work"]:
                processes.end_with_launcher()
            base, given = _take_config(arguments)
            return _run(given, base, ("transfer-jax", *arguments)) or 0
    except KeyboardInterrupt as stopped:
        CONSOLE.print("Stopped; nothing is lost. The same command goes on from here.")
        return PREEMPTED if isinstance(stopped, Terminated) else 130
    except (ArithmeticError, ImportError, OSError, RuntimeError, ValueError) as error:
        if debug:
            traceback.print_exc()
        else:
            CONSOLE.quiet = False
            line = " ".join(str(error).split()) or type(error).__name__
            CONSOLE.print(f"[red]error:[/red] {escape(line)}", highlight=False, soft_wrap=True)
        code = 1 if _several() and isinstance(error, jax.errors.JaxRuntimeError) else 2
        if _several():
            processes.exit_now(code)
        return code


def _join() -> None:
    """Connects to the other processes of a run; only the first of them talks."""
    processes.join()
    CONSOLE.quiet = OUT.quiet = _several() and not processes.is_first()


def _several() -> bool:
    return jax.distributed.is_initialized() and processes.count() > 1


def _take_config(arguments: list[str]) -> tuple[TrainConfig | None, list[str]]:
    """Reads the config that `train CONFIG …` names; its values become the defaults of the options."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None or not takes_config(command):
        return None, arguments
    place = config_place(command)
    if any(argument.startswith("-") for argument in arguments[: place + 1]) or len(arguments) <= place:
        return None, arguments
    return load_config(arguments[place]), [*arguments[:place], *arguments[place + 1 :]]


def _split_launched(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Divides `launch … -- train …`."""
    if arguments[:1] != ["launch"] or "--" not in arguments:
        return arguments, ["train", "--help"]
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _run(arguments: list[str], base: TrainConfig | None, typed: tuple[str, ...]) -> int | None:
    arguments, launched = _split_launched(arguments)
    blank = default_config if arguments[:1] == ["study"] else lambda images: TrainConfig(images=images)
    defaults = {
        "config": base or blank(tyro.MISSING),
        "command": tuple(launched),
        "typed": typed,
        "given": None if base else given_fields(arguments),
    }
    try:
        return tyro.extras.subcommand_cli_from_dict(
            {name: preset(command, **defaults) for name, command in COMMANDS.items()},
            args=arguments,
            prog="transfer-jax",
            description=(
                "Adapt pretrained image networks; pay only for what you unfreeze. "
                f"Experiments that come along: {', '.join(shipped_configs())}. "
                "Add --debug to any command for a full traceback."
            ),
        )
    finally:
        BARS.abandon()


def _use_compilation_cache() -> None:
    """Keeps compiled programs between runs, unless the user has chosen a place for them."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "transfer_jax" / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


if __name__ == "__main__":
    sys.exit(main())
