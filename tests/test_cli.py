"""Mistakes on the command line: one line that names what is wrong, before anything is read or computed."""

from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from transfer_jax import cli

TINY = ("--model", "efficientnet_lite_tiny", "--weights", "none")


@pytest.fixture
def fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Runs a command that has to fail before it reads an image, runs a network or writes; gives its line.

    The folder of its images is not even there.
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
            ("are of 'efficientnet_lite0', not of 'efficientnet_lite_tiny'",),
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
        ((*TINY, "--eval-fraction", 1.5), ("eval_fraction must be in (0, 1), got 1.5",)),
        ((*TINY, "--batch-size", 10, "--accumulate", 4), ("batch_size 10", "accumulate 4")),
        (TINY, ("unknown dataset 'nowhere'", "folder:PATH")),
    ],
)
def test_bad_option(options: tuple, parts: tuple, fails: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    line = fails("train", "--images", "nowhere", *options, "--workdir", "run")
    for part in parts:
        assert part in line


def test_unreadable_selector(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Options that cannot be read are explained by the parser, in a box."""
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
    assert "unknown dataset '[old]/[/x]'" in fails("train", "--images", "[old]/[/x]", *TINY)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--debug", "--images", "nowhere", *TINY]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert "unknown dataset 'nowhere'" in err


def test_an_error_gives_the_terminal_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress bars hide the cursor while they are shown."""
    shown = []
    monkeypatch.setattr(cli.CONSOLE, "show_cursor", shown.append)
    monkeypatch.setattr(cli.CONSOLE, "_force_terminal", True)
    monkeypatch.setattr("transfer_jax.commands.config_options.resolve", _begins_and_fails)
    assert cli.main(["extract", "--images", "nowhere", *TINY]) == 2
    assert shown == [False, True]


def _begins_and_fails(config, *, progress, **settings):
    progress.start("reading", 10)
    raise ValueError("broken")


@pytest.fixture(autouse=True)
def _no_network_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong is found before anything is compiled for images."""

    def compile_function(*args: object, **options: object) -> None:
        raise AssertionError("a mistake was found too late")

    monkeypatch.setattr("transfer_jax.training.phase_data.compile_function", compile_function)
    monkeypatch.setattr("transfer_jax.training.phase_programs.compile_function", compile_function)
    assert jax.default_backend() == "cpu"
