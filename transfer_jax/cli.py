"""The command line: `transfer-jax COMMAND …`, its help, its errors and its exit codes.

A command's module is imported when the command is called, so that `--help` needs no JAX.
"""

import difflib
import functools
import importlib
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from transfer_jax.config import load_config, shipped_configs
from transfer_jax.extras import explain
from transfer_jax.former_names import with_todays_options
from transfer_jax.report.console import BARS, CONSOLE, OUT, LogHandler, print_line, replace_unencodable

_NARROWEST = 40
"""Columns of the narrowest terminal that text is wrapped for."""
_BROKEN_PIPE = 141
"""Exit code of a command whose reader is gone, as a shell reports it for other programs."""
_STOPPED = "Stopped; nothing is lost. The same command resumes from here."


class Command(NamedTuple):
    """A command.

    Its options are the parameters of its function, and its help is the function's docstring.

    Attributes:
        function: Module in `transfer_jax.commands`, and name of the function, as `runs.train`.
        summary: First line of the function's docstring.
        example: Arguments of an example.
    """

    function: str
    summary: str
    example: str

    def load(self) -> Callable[..., Any]:
        """Imports the function."""
        module, name = self.function.split(".")
        return getattr(importlib.import_module(f"transfer_jax.commands.{module}"), name)


COMMANDS = {
    "demo": Command(
        "runs.demo", "Fine-tunes a real network on real photographs in three ways.", "demo --quick"
    ),
    "train": Command("runs.train", "Trains a schedule, or resumes it.", "train --images photos"),
    "launch": Command(
        "runs.launch",
        "Trains or extracts in several processes on this machine, and restarts them after a failure.",
        "launch --processes 2 -- train --images photos",
    ),
    "check": Command(
        "check.check", "Checks all images for problems; nothing is trained.", "check --images photos"
    ),
    "pack": Command(
        "pack.pack",
        "Packs images and their labels into array_record shards, which are read faster than files.",
        "pack photos photos-packed",
    ),
    "plan": Command(
        "plan.plan", "Shows what a schedule trains, when, and at what cost.", "plan --images photos --cost"
    ),
    "bench": Command(
        "bench.bench",
        "Measures the speed of training steps on this machine, for each choice of what trains.",
        "bench vit_base_patch16_224 --trains head 'top(2)' 'all_()' --cached",
    ),
    "find-rate": Command(
        "plan.find_rate", "Finds a learning rate for a phase.", "find-rate --images photos --out rates.png"
    ),
    "evaluate": Command(
        "evaluate.evaluate", "Evaluates a trained model on labelled images.", "evaluate runs/photos"
    ),
    "predict": Command(
        "runs.predict",
        "Predicts the classes, labels or quantities of image files.",
        "predict runs/photos new_photos --out predictions.csv",
    ),
    "diagnose": Command(
        "diagnose.diagnose",
        "Diagnoses a finished run: calibration, scores by group, changes of each block.",
        "diagnose runs/photos",
    ),
    "report": Command(
        "report.report",
        "Writes an HTML report of a run, of a study or a search, or of several runs side by side.",
        "report runs/photos",
    ),
    "extract": Command(
        "features.extract",
        "Extracts the features of all images into NumPy files.",
        "extract --images photos --boundary pre_logits",
    ),
    "probe": Command(
        "probe.probe",
        "Scores the features of each depth by nearest neighbours and by a linear model.",
        "probe --images photos",
    ),
    "heads": Command(
        "features.heads",
        "Trains hundreds of heads on the same features and saves the best one.",
        "heads --images photos",
    ),
    "study": Command(
        "studies.study",
        "Answers a question with many runs, such as how many blocks to unfreeze.",
        "study unfreeze_depth --images photos",
    ),
    "work": Command(
        "studies.work",
        "Works on the trials of a study that no other worker has.",
        "work runs/photos-unfreeze_depth",
    ),
    "models": Command("models.models", "Lists the networks and their weights.", "models --match 'resnet*'"),
    "inspect": Command(
        "models.inspect",
        "Lists the arrays of a weight file and the networks that they fit.",
        "inspect weights.safetensors",
    ),
    "export": Command(
        "models.export",
        "Exports a trained model to another library or runtime.",
        "export runs/photos --to stablehlo",
    ),
    "push": Command(
        "push.push",
        "Uploads a trained model with its model card to the Hugging Face hub.",
        "push runs/photos OWNER/photos",
    ),
    "serve": Command("serve.serve", "Serves a trained model over HTTP.", "serve runs/photos"),
}
"""The commands by name."""


def main(argv: list[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The arguments without the name of the program; None takes those of this process.

    Returns:
        The exit code: 0 after success; 1 if another process of the run was lost; 2 after a user error, whose
        message says what to fix; 75 after SIGTERM and 130 after Ctrl-C, in both cases with a checkpoint if a
        training has started; 141 if the reader of the output is gone.
    """
    replace_unencodable()
    if shutil.get_terminal_size().columns < _NARROWEST:  # Laying out the help for less may never end.
        os.environ["COLUMNS"] = str(_NARROWEST)
    arguments = with_todays_options(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    name, *options = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    try:
        return _main(name, options)
    except KeyboardInterrupt:
        print_line(CONSOLE, _STOPPED)
        return 130
    except AssertionError as error:
        if debug or not _lacks_platform(error):
            raise
        platforms = os.environ["JAX_PLATFORMS"]
        remedy = "install its package, such as 'jax[cuda13]', or unset the variable"
        print_line(CONSOLE, f"error: JAX finds no device for JAX_PLATFORMS={platforms}; {remedy}")
        return 2
    except (ArithmeticError, ImportError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return _BROKEN_PIPE
        if debug:
            traceback.print_exc()
        else:
            CONSOLE.quiet = False
            print_line(CONSOLE, f"error: {_explained(error)}")
        return _leave_processes(error)


def _main(name: str, options: list[str]) -> int:
    """Runs a command, or shows a help."""
    if name in ("-h", "--help"):
        print_line(OUT, _help())
        return 0
    if name == "--version":
        print_line(OUT, f"transfer_jax {_version()}")
        return 0
    if name not in COMMANDS:
        raise ValueError(_unknown(name))
    if _asks_for_help(options):
        _run(name, options)
        return 0
    return _run_prepared(name, options)


def _run_prepared(name: str, options: list[str]) -> int:
    """Runs a command after the settings of this process that JAX needs."""
    from transfer_jax.malloc import keep_freed_memory
    from transfer_jax.quiet_libtpu import quiet_without_tpu

    logging.basicConfig(format="%(message)s", handlers=[LogHandler(CONSOLE)])
    keep_freed_memory()
    quiet_without_tpu()
    _use_caches()

    from transfer_jax.distributed import processes
    from transfer_jax.distributed.launch import PREEMPTED
    from transfer_jax.runs.interrupt import Terminated, terminable

    try:
        with terminable():
            if name in ("train", "extract"):
                processes.join(functools.partial(print_line, CONSOLE))
                CONSOLE.quiet = OUT.quiet = _has_other_processes() and not processes.is_first()
            elif name == "work":
                processes.end_with_launcher()
            return _run(name, options) or 0
    except Terminated:
        print_line(CONSOLE, _STOPPED)
        return PREEMPTED


def _run(name: str, options: list[str]) -> int | None:
    """Parses the options of a command and calls its function."""
    import tyro

    from transfer_jax.commands.config_options import (
        config_place,
        default_config,
        description,
        given_fields,
        names_of_objects,
        preset,
        split_schedule,
        takes_config,
        with_schedule,
    )

    typed = ("transfer-jax", name, *options)
    options, launched = _split_launched(name, options)
    command, base = COMMANDS[name].load(), None
    if takes_config(command):
        place = config_place(command)
        if len(options) > place and not any(option.startswith("-") for option in options[: place + 1]):
            base = load_config(options[place])
            options = [*options[:place], *options[place + 1 :]]
    given = None if base else given_fields(options)
    config = base or default_config(name)
    if takes_config(command):
        options, schedule = split_schedule(options)
        config = config if schedule is None else with_schedule(config, schedule)
    defaults = {
        "config": config,
        "command": tuple(launched),
        "typed": typed,
        "given": given,
    }
    try:
        return tyro.cli(
            preset(command, **defaults),
            args=options,
            prog=f"transfer-jax {name}",
            description=description(command, COMMANDS[name].example),
            registry=names_of_objects(),
        )
    finally:
        BARS.abandon()


def _split_launched(name: str, options: list[str]) -> tuple[list[str], list[str]]:
    """Splits `launch … -- train …` into the options of `launch` and the command that it starts."""
    if name != "launch" or "--" not in options:
        return options, ["train", "--help"]
    at = options.index("--")
    return options[:at], options[at + 1 :]


def _asks_for_help(options: list[str]) -> bool:
    own = options[: options.index("--")] if "--" in options else options
    return "-h" in own or "--help" in own


def _help() -> str:
    """Returns the help of `transfer-jax`."""
    import textwrap

    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    margin = max(map(len, COMMANDS)) + 4
    lines = ["usage: transfer-jax COMMAND [OPTIONS]", ""]
    lines += ["Transfer learning in JAX: pay only for what you unfreeze.", "", "commands:"]
    for name, command in COMMANDS.items():
        first = f"  {name}".ljust(margin)
        lines += textwrap.wrap(command.summary, width, initial_indent=first, subsequent_indent=" " * margin)
    lines += ["", "options:"]
    lines += [f"{option:<{margin}}{text}" for option, text in _OPTIONS.items()]
    configs = f"Shipped configs: {', '.join(shipped_configs())}."
    lines += ["", *textwrap.wrap(configs, width, break_on_hyphens=False), ""]
    lines += ["`transfer-jax COMMAND --help` describes a command. Start with `transfer-jax demo --quick`."]
    return "\n".join(lines)


_OPTIONS = {
    "  -h, --help": "Shows this help.",
    "  --version": "Shows the version.",
    "  --debug": "Shows the full traceback of an error, with any command.",
}


def _version() -> str:
    from transfer_jax import __version__

    return __version__


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"unknown command {name!r}{hint} The commands are {', '.join(COMMANDS)}"


def _has_other_processes() -> bool:
    """Returns whether this process belongs to a run of several."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


def _leave_processes(error: Exception) -> int:
    """Returns the exit code after an error; in a run of several processes, ends this process at once."""
    if not _has_other_processes():
        return 2
    import jax

    from transfer_jax.distributed import processes

    code = 1 if isinstance(error, jax.errors.JaxRuntimeError) else 2
    processes.exit_now(code)
    return code


def _use_caches() -> None:
    """Keeps compiled programs and fonts between runs, unless the user has set folders for them."""
    from transfer_jax.user_cache import can_create, user_cache

    folder = user_cache("xla")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and can_create(folder):
        import jax

        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    settings = Path(os.path.expanduser("~/.config/matplotlib"))  # Without a home, "~" stays as it is.
    if not settings.is_absolute() or not can_create(settings):
        os.environ.setdefault("MPLCONFIGDIR", str(user_cache("matplotlib")))


def _explained(error: Exception) -> str:
    """Returns the message of an error in one line."""
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_current_folder():
        return "the current folder was deleted; change to another one"
    return explain(error)


def _has_current_folder() -> bool:
    try:
        return bool(os.getcwd())
    except FileNotFoundError:
        return False


def _lacks_platform(error: AssertionError) -> bool:
    """Returns whether JAX found no devices; for some platforms it has no message of its own."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(os.environ.get("JAX_PLATFORMS")) and frames[-1].filename.endswith("xla_bridge.py")


def _reader_is_gone() -> bool:
    """Returns whether stdout is a pipe without a reader, as in `... | head`, and prints nothing more then."""
    try:
        sys.stdout.write("\n")  # What failed before may have left nothing to flush.
        sys.stdout.flush()
    except BrokenPipeError:
        OUT.on_broken_pipe()
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
