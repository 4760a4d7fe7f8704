"""The options of commands that take a config, the defaults of commands, and their descriptions."""

import copy
import dataclasses
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import tyro

from transfer_jax.config import GROUPS, TrainConfig
from transfer_jax.freezing.python_object import PythonObject
from transfer_jax.report.console import BARS, CONSOLE, print_line

if TYPE_CHECKING:
    from transfer_jax.planning.resolved_run import ResolvedRun

Config = Annotated[TrainConfig, tyro.conf.arg(name="")]
"""A config whose fields are options."""
Given = Annotated[tuple[str, ...] | None, tyro.conf.Suppress]
"""The fields of the config that options set; None if a config was named, which sets all of them."""


_NO_DOCSTRINGS = "Descriptions are missing, because Python runs without docstrings (PYTHONOPTIMIZE=2, -OO)."


def names_of_objects() -> tyro.constructors.ConstructorRegistry:
    """Returns the rule for options that take an object of Python, or in the command line its name."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if get_args(info.type) != (str, PythonObject):
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="STR",
            instance_from_str=lambda texts: texts[0],
            is_instance=lambda value: isinstance(value, (str, PythonObject)),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def takes_config(command: Callable[..., Any]) -> bool:
    """Returns whether a command takes the name of a config, as `transfer-jax COMMAND CONFIG`."""
    return "config" in inspect.signature(command).parameters


def config_place(command: Callable[..., Any]) -> int:
    """Returns the position of that name among the arguments, after other positional arguments."""
    return list(inspect.signature(command).parameters).index("config")


def default_config(name: str) -> TrainConfig:
    """Returns the config whose fields are the defaults of a command; its `images` are missing."""
    if name == "study":
        from transfer_jax.studies.default_config import default_config as study_config

        config = study_config("")
    else:
        config = TrainConfig(images="")
    object.__setattr__(config, "images", tyro.MISSING)  # Not checked: tyro replaces it, or asks for it.
    return config


def split_schedule(options: Sequence[str]) -> tuple[list[str], str | None]:
    """Splits the options of a command into those for tyro, and the text of `--schedule`; None without it.

    Raises:
        ValueError: If `--schedule` has no value.
    """
    left, text = [], None
    rest = iter(options)
    for option in rest:
        if option == "--schedule":
            text = next(rest, None)
            if text is None or text.startswith("-"):
                raise ValueError("--schedule needs a recipe, such as head, or 'five_steps(top(2), epochs=5)'")
        elif option.startswith("--schedule="):
            text = option.partition("=")[2]
        else:
            left.append(option)
    return left, text


def with_schedule(config: TrainConfig, text: str) -> TrainConfig:
    """Returns a config with the schedule that a text describes; see `schedule_from_text`."""
    from transfer_jax.freezing.recipes.recipe_text import schedule_from_text

    config = copy.copy(config)
    object.__setattr__(config, "schedule", schedule_from_text(text))  # `images` may be missing still.
    return config


def preset(command: Callable[..., Any], /, **defaults: Any) -> Callable[..., Any]:
    """Returns a command with other defaults for those of its parameters that are named.

    The fields of a config become options in the groups of `TrainConfig`.
    """
    signature = inspect.signature(command)
    parameters = [
        parameter.replace(default=defaults.get(name, parameter.default))
        for name, parameter in signature.parameters.items()
    ]
    parameters = [_grouped(each) if each.name == "config" else each for each in parameters]

    def changed(**values: Any) -> Any:
        return command(**values)

    changed.__doc__ = command.__doc__
    setattr(changed, "__signature__", signature.replace(parameters=parameters))  # noqa: B010
    changed.__annotations__ = {each.name: each.annotation for each in parameters}
    return changed


def description(command: Callable[..., Any], example: str) -> str:
    """Returns the text of a command's help: its docstring without the arguments, and an example."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    text = inspect.getdoc(command) or _NO_DOCSTRINGS
    paragraphs = text.split("\nArgs:")[0].strip().split("\n\n")
    # Without the indent tyro would join the lines of a paragraph.
    options = {"subsequent_indent": "  ", "break_on_hyphens": False, "break_long_words": False}
    wrapped = [textwrap.fill(" ".join(each.split()), width, **options) for each in paragraphs]
    return "\n\n".join([*wrapped, f"Example: transfer-jax {example}"])


def default_workdir(config: TrainConfig) -> Path:
    """Returns the default workdir: `runs/` and the name of the images."""
    name = config.images.replace(":", "-")
    if name.startswith("tfds-"):  # The name of a dataset may contain that of its config, and of features.
        name = re.sub(r"[^\w.+]+", "-", name).strip("-")
    elif Path(name).name in ("", ".."):  # The current folder, or the one above it.
        name = str(Path(name).resolve())
    return Path("runs", Path(name).name or "images")


def given_fields(arguments: Sequence[str]) -> tuple[str, ...]:
    """Returns the fields of the config that options among the arguments of a command set."""
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    found = set()
    for argument in arguments:
        if argument.startswith("--"):
            name = argument.removeprefix("--").split("=")[0].split(".")[0].replace("-", "_")
            found |= {name, name.removeprefix("no_")} & fields
    return tuple(sorted(found))


_OF_SCHEDULE = ("schedule", "batch_size", "keep_epoch", "cache")
"""Fields of defaults that only training by a schedule uses."""


def resolved_run(
    config: TrainConfig,
    given: tuple[str, ...] | None,
    workdir: Path,
    *,
    scan: bool = False,
    schedule: bool = True,
) -> "ResolvedRun":
    """Returns the run that a command is about, and prints the chosen defaults and the problems of the images.

    Args:
        config: The config.
        given: The fields that the user set; defaults are chosen for the others. None chooses none.
        workdir: Folder of the run.
        scan: Whether to check all images.
        schedule: Whether the command uses the schedule; the defaults of a command that does not are printed
            without those of the schedule.
    """
    from transfer_jax.runs.resolve import resolve
    from transfer_jax.storage.remote import local_path, pull

    folder = local_path(workdir)
    pull(folder, skip=("features",))
    resolved = resolve(config, given=given, workdir=folder, progress=BARS, scan=scan)
    chosen = [choice for choice in resolved.defaults if schedule or choice.field not in _OF_SCHEDULE]
    if chosen:
        print_line(CONSOLE, "Defaults chosen from your images (override any with an option):")
        for choice in chosen:
            print_line(CONSOLE, f"  {choice}")
    if resolved.findings:
        print_line(CONSOLE, "Problems found in the images:")
        for finding in resolved.findings:
            print_line(CONSOLE, f"  {finding}")
    return resolved


def resumed_or_resolved_run(
    config: TrainConfig, given: tuple[str, ...] | None, workdir: Path, *, scan: bool = False
) -> "TrainConfig | ResolvedRun":
    """Returns the config of the run in a workdir if it has started, otherwise `resolved_run`.

    Nothing is loaded for a run that has started: it may be finished.
    """
    from transfer_jax.runs.resolve import resumed_config
    from transfer_jax.storage.remote import local_path, pull

    folder = local_path(workdir)
    pull(folder, skip=("features",))
    return resumed_config(config, given, folder) or resolved_run(config, given, workdir, scan=scan)


def _grouped(parameter: inspect.Parameter) -> inspect.Parameter:
    """Returns a parameter for a config that the groups of options fill."""
    base = parameter.default

    def build(**groups: Any) -> TrainConfig:
        return TrainConfig(**{name: value for each in groups.values() for name, value in vars(each).items()})

    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[_options_of(group, base), tyro.conf.arg(name=name)],
        )
        for name, group in GROUPS.items()
    ]
    setattr(build, "__signature__", inspect.Signature(options))  # noqa: B010
    build.__annotations__ = {each.name: each.annotation for each in options}
    annotation = Annotated[TrainConfig, tyro.conf.arg(name="", constructor=build)]
    return parameter.replace(annotation=annotation, default=inspect.Parameter.empty)


def _options_of(group: type, config: TrainConfig) -> type:
    """Returns a dataclass with the fields of a group as options without a prefix, and a config's values."""
    hints = get_type_hints(group)
    fields = [
        (
            field.name,
            Annotated[hints[field.name], tyro.conf.arg(prefix_name=False)],
            dataclasses.field(default=getattr(config, field.name)),
        )
        for field in dataclasses.fields(group)
    ]
    namespace = {"__doc__": group.__doc__ if sys.flags.optimize < 2 else _NO_DOCSTRINGS}
    return dataclasses.make_dataclass(group.__name__, fields, namespace=namespace, kw_only=True)
