"""The command line: its help, and its errors, which are one line and raised before anything is computed."""

import functools
import inspect
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

import transfer_jax
from transfer_jax import cli
from transfer_jax.user_cache import user_cache

TINY = ("--model", "efficientnet_lite_tiny", "--weights", "none")


HELP = """
import io, sys
from contextlib import redirect_stdout
from transfer_jax import cli
for arguments in (["--help"], *([name, "--help"] for name in cli.COMMANDS)):
    with redirect_stdout(io.StringIO()) as out:
        try:
            cli.main(arguments)
        except SystemExit as left:
            assert not left.code, arguments
    assert out.getvalue().startswith("usage: transfer-jax " + arguments[0].replace("--help", "")), arguments
print(*{name.split(".")[0] for name in sys.modules})
"""


def test_help_imports_no_heavy_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], capture_output=True, text=True, check=True, timeout=600
    )
    heavy = {
        "jax",
        "flax",
        "optax",
        "scipy",
        "sklearn",
        "pyarrow",
        "matplotlib",
        "jinja2",
        "tensorflow_datasets",
    }
    assert not heavy & set(done.stdout.split())


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, command in cli.COMMANDS.items():
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert command.summary.startswith(line.split(maxsplit=1)[1])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_summary_is_the_first_line_of_the_docstring(name: str) -> None:
    command = cli.COMMANDS[name]
    assert (inspect.getdoc(command.load()) or "").splitlines()[0] == command.summary


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_example_of_a_command_can_be_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = cli.COMMANDS[name]
    called = []

    @functools.wraps(command.load())
    def idle(**values: object) -> None:
        called.append(values)

    monkeypatch.setattr(cli.Command, "load", lambda self: idle)
    first, *options = shlex.split(command.example)
    assert first == name
    assert cli.main([name, *options]) == 0
    assert len(called) == 1


def test_help_groups_the_fields_of_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    out = capsys.readouterr().out
    places = [out.index(f" {name} options ") for name in ("data", "model", "optimization", "compute")]
    assert places == sorted(places)
    assert places[0] < out.index("--images STR") < places[1] < out.index("--weights STR") < places[2]
    assert "Example: transfer-jax train --images photos" in out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"transfer_jax {transfer_jax.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["models", "--match", "*lite_tiny"]])
def test_output_in_ascii(arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "transfer_jax.cli", *arguments],
        env={**environment, "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=True,
        timeout=600,
    )
    assert done.stdout.isascii()
    assert len(done.stdout) > 100


@pytest.fixture
def fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs a command that fails before it reads an image, runs a network or writes; returns its error line.

    The folder of its images does not exist.
    """
    monkeypatch.chdir(tmp_path)

    def fails(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert cli.main([str(argument) for argument in arguments]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    return fails


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--model", "efficientnet_lite_tinny"), ("'efficientnet_lite_tinny'", "efficientnet_lite_tiny")),
        (("--weights", "imagenet"), ("no weights 'imagenet'", "efficientnet_lite0")),
        (
            ("--model", "efficientnet_lite_tiny", "--weights", "auto"),
            ("no published weights for 'efficientnet_lite_tiny'",),
        ),
        (
            ("--model", "efficientnet_lite_tiny", "--weights", "efficientnet_lite0"),
            ("belong to 'efficientnet_lite0', not to 'efficientnet_lite_tiny'",),
        ),
        (
            (*TINY, "--schedule.phases.1.train", "from_('blocks.99')"),
            ("from_('blocks.99') matches no block", "blocks.7, top, head"),
        ),
        ((*TINY, "--schedule.phases.1.train", "match('nope')"), ("match('nope') matches none",)),
        ((*TINY, "--schedule.phases.1.train", "head & ~head"), ("leaves nothing to train",)),
        ((*TINY, "--schedule.phases.1.train", "top(11)"), ("top(11): the backbone has 10 blocks",)),
        (
            (*TINY, "--schedule.phases.1.cache", "require", "--schedule.phases.1.views", 0),
            ("phase 'top' requires a cache", "augments each image again in each epoch"),
        ),
        (
            (*TINY, "--schedule.phases.1.cache", "require", "--schedule.phases.1.train", "all_()"),
            ("phase 'top' requires a cache", "its lowest block trains"),
        ),
        ((*TINY, "--augmentation.mixup", 0.2), ("phase 'top' uses a cache", "mixup")),
        ((*TINY, "--batch-size", 0), ("batch_size must be at least 1, got 0",)),
        ((*TINY, "--val-fraction", 1.5), ("val_fraction must be in (0, 1), got 1.5",)),
        ((*TINY, "--batch-size", 10, "--accumulate", 4), ("batch_size 10", "accumulate 4")),
        (TINY, ("unknown dataset 'nowhere'", "folder:PATH")),
    ],
)
def test_bad_option(options: tuple, parts: tuple, fails: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    line = fails("train", "--images", "nowhere", *options, "--workdir", "run")
    for part in parts:
        assert part in line


def test_unreadable_selector(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The parser explains invalid options in a box."""
    with pytest.raises(SystemExit) as left:
        cli.main(["train", "--images", str(tmp_path), "--schedule.phases.0.train", "top(2"])
    assert left.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "invalid selector 'top(2'; use head, all_(…), top(…)" in said


def test_unknown_boundary(fails: Callable) -> None:
    line = fails("extract", "--images", "nowhere", *TINY, "--boundary", "block.3", "--workdir", "run")
    assert "no block 'block.3'; did you mean blocks.3" in line


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        (None, ("no config 'mine.py'", "elpv_five_steps")),
        ("config = 3", ("mine.py must define `config`", "int")),
        ("config = (", ("mine.py", "SyntaxError")),
        ("from transfer_jax import TrainConfig\nconfig = TrainConfig()", ("mine.py", "TypeError", "images")),
    ],
)
def test_bad_config_file(source: str | None, parts: tuple, fails: Callable, tmp_path: Path) -> None:
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    line = fails("train", "mine.py")
    for part in parts:
        assert part in line


def test_no_such_model_to_list(fails: Callable) -> None:
    said = fails("models", "--match", "alexnet*")
    assert "no model matches 'alexnet*'; the families are efficientnet_lite, efficientnet" in said


def test_no_such_run(fails: Callable) -> None:
    assert "no trained model in runs" in fails("evaluate", "runs")


def test_brackets_are_no_markup(fails: Callable) -> None:
    assert "the folder '[old]/[/x]' does not exist" in fails("train", "--images", "[old]/[/x]", *TINY)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--debug", "--images", "nowhere", *TINY]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert "unknown dataset 'nowhere'" in err


def test_an_unknown_command(fails: Callable) -> None:
    line = fails("trian", "--images", "photos")
    assert "unknown command 'trian'; did you mean train? The commands are demo, train, launch" in line


def test_a_deleted_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cli.main(["train", "--images", "photos", *TINY]) == 2
    assert capsys.readouterr().err == "error: the current folder was deleted; change to another one\n"


def test_a_platform_without_devices(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(name: str, options: list[str]) -> int:
        raise AssertionError

    lacks.__code__ = lacks.__code__.replace(co_filename="jax/_src/xla_bridge.py")
    monkeypatch.setattr(cli, "_main", lacks)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert cli.main(["train"]) == 2
    assert "JAX finds no device for JAX_PLATFORMS=cuda; install its package" in capsys.readouterr().err
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(AssertionError):
        cli.main(["train"])


def test_matplotlib_has_a_folder_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "set")
    monkeypatch.setenv("MPLCONFIGDIR", "set")
    monkeypatch.delenv("MPLCONFIGDIR")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    cli._use_caches()
    assert os.environ["MPLCONFIGDIR"] == str(user_cache("matplotlib"))


UNREAD = """
import os, sys
from transfer_jax import cli
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
try:
    code = cli.main(sys.argv[1:])
except SystemExit as left:
    code = left.code
sys.stderr.write(f"code {code}")
"""


def test_a_broken_pipe_of_which_nothing_is_left_to_write(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str, options: list[str]) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    read, write = os.pipe()
    os.close(read)
    monkeypatch.setattr(cli, "_main", fails)
    monkeypatch.setattr(cli.OUT, "quiet", False)
    with os.fdopen(write, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert cli.main(["study", "--help"]) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_the_reader_of_the_output_is_gone(arguments: list[str]) -> None:
    command = [sys.executable, "-c", UNREAD, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stderr in ("code 141", "code 0")


@pytest.mark.extended
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONOPTIMIZE": "2", "COLUMNS": "1", "TERM": "dumb"},
        {
            "PYTHONWARNINGS": "error",
            "HOME": "/nonexistent",
            "TMPDIR": "/nonexistent",
            "LC_ALL": "xx_YY.nothing",
        },
        {"JAX_ENABLE_X64": "1", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},
    ],
)
def test_unusual_environments(variables: dict[str, str], image_folder: Path, tmp_path: Path) -> None:
    run = (
        "train",
        "--images",
        str(image_folder),
        *TINY,
        "--schedule.phases.1.epochs",
        "1",
        "--workdir",
        "run",
    )
    for arguments in (("train", "--help"), run):
        done = subprocess.run(
            [sys.executable, "-m", "transfer_jax", *arguments],
            env={**os.environ, **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stdout) > 100
    assert (tmp_path / "run" / "report.html").exists()


def test_an_error_gives_the_terminal_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress bars hide the cursor while they are shown."""
    shown = []
    monkeypatch.setattr(cli.CONSOLE, "show_cursor", shown.append)
    monkeypatch.setattr(cli.CONSOLE, "_force_terminal", True)
    monkeypatch.setattr("transfer_jax.runs.resolve.resolve", _starts_and_fails)
    assert cli.main(["extract", "--images", "nowhere", *TINY]) == 2
    assert shown == [False, True]


def _starts_and_fails(config, *, progress, **settings):
    progress.start("reading", 10)
    raise ValueError("broken")


@pytest.fixture(autouse=True)
def _no_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes sure that errors are raised before anything is compiled for images."""

    def compile_too_late(*args: object, **options: object) -> None:
        raise AssertionError("the error was raised too late")

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_too_late)
    assert jax.default_backend() == "cpu"
