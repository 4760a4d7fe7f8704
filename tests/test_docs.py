"""The documentation: its code runs, its commands parse, its links lead somewhere, no public name is missing.

A block that says `python` runs, in the order of its page. `python NAME` is that of another library and runs
where it is installed, without its published weights; `python skip` does not run.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import re
import shlex
import shutil
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import transfer_jax
from transfer_jax import cli
from transfer_jax.commands.config_options import takes_config
from transfer_jax.config import TrainConfig
from transfer_jax.data import default_data_dir
from transfer_jax.freezing import Schedule
from transfer_jax.freezing.recipes import RECIPES
from transfer_jax.models import registry
from transfer_jax.runs import fit

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks/README.md", ROOT / "configs/launch/README.md"]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
BLOCK = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
SLOW = ("models", "quickstart", "coming_from", "index", "probes")
"""Pages whose code is slow."""
SHIPPED = "elpv_five_steps"
"""Stands for any config in commands."""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """What stands behind the three backticks, and the code."""
    return [(found["info"].strip(), found["text"]) for found in BLOCK.finditer(page.read_text())]


def code_of(page: Path, info: str) -> list[str]:
    return [text for label, text in blocks(page) if label == info]


def run(page: Path, texts: list[str], namespace: dict) -> None:
    for text in texts:
        exec(compile(text, f"{page.name}: {text.splitlines()[0]}", "exec"), namespace)


def small_schedule(schedule: Schedule) -> Schedule:
    """An epoch of the first phase."""
    first = schedule.phases[0]
    return Schedule((dataclasses.replace(first, epochs=1, views=min(first.views, 1)),))


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of somebody who follows a page, with the images that pages speak of; its runs are small."""
    rng = np.random.default_rng(0)
    for place in ("photos/cat", "photos/dog", "new_photos", "other_photos", "path/to"):
        (tmp_path / place).mkdir(parents=True)
    for index in range(16):
        pixels = rng.integers(0, 120, (40, 48, 3), np.uint8)
        pixels[..., index % 2] += 100
        Image.fromarray(pixels).save(tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index}.png")
    for place in ("new_photos/1.png", "path/to/image.png"):
        shutil.copy(tmp_path / "photos/cat/0.png", tmp_path / place)

    def small_fit(config: TrainConfig, workdir: str | Path, **others):
        images = "photos/" if config.images.startswith("elpv") else config.images
        schedule = small_schedule(config.schedule)
        small = dataclasses.replace(config, images=images, image_size=32, batch_size=4, schedule=schedule)
        return fit(small, workdir, **others)

    monkeypatch.setenv("TRANSFER_JAX_DATA", str(default_data_dir()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("transfer_jax.search.fine_tune.fit", small_fit)
    monkeypatch.setattr(transfer_jax, "fit", small_fit)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def extended(page: Path) -> pytest.MarkDecorator | tuple[()]:
    """Marks the pages whose code is slow; `make test` runs the README's and that of other pages."""
    return pytest.mark.extended if page.stem in SLOW else ()


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=extended(page)) for page in PAGES if code_of(page, "python")],
    ids=named,
)
def test_code_of_a_page_runs(page: Path, reader: Path) -> None:
    namespace: dict = {"__name__": "page"}
    run(page, code_of(page, "python"), namespace)
    assert set(namespace) - {"__name__", "__builtins__"}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_of_code_says_whether_it_runs(page: Path) -> None:
    for info, text in blocks(page):
        if info.startswith("python"):
            ast.parse(text)
        else:
            assert not re.search(r"^(import|from) \w+", text, re.MULTILINE), text


@pytest.mark.extended
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("library", "jobs"),
    [("timm", 5), ("keras", 5), ("fastai", 5), ("lightning", 5), ("equinox", 1), ("kauldron", 1)],
)
def test_code_of_other_libraries_runs(
    library: str, jobs: int, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random weights, since nothing is downloaded."""
    pytest.importorskip(library)
    page = DOCS / "coming_from.md"
    namespace: dict = {"__name__": "page", "np": np, "tj": transfer_jax}
    if jobs > 1:
        prepare_library(library, namespace, monkeypatch)
    run(page, [text for text in code_of(page, "python") if "def adapt(" in text], namespace)
    texts = code_of(page, f"python {library}")
    assert len(texts) >= jobs
    run(page, texts, namespace)


def prepare_library(library: str, namespace: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps a library from downloading weights, and gives what its blocks take for granted."""
    module = importlib.import_module(library)
    if library == "keras":
        made = module.applications.MobileNetV2
        monkeypatch.setattr(module.applications, "MobileNetV2", lambda **o: made(**{**o, "weights": None}))
    else:
        timm = importlib.import_module("timm")
        make = timm.create_model
        monkeypatch.setattr(timm, "create_model", lambda name, **o: make(name, **{**o, "pretrained": False}))
    if library == "lightning":
        import torch

        images = torch.zeros(4, 3, 64, 64)
        data = torch.utils.data.TensorDataset(images, torch.tensor([0, 1, 0, 1]))
        namespace["loader"] = torch.utils.data.DataLoader(data, 4)
    if library == "fastai":
        names = importlib.import_module("fastai.vision.all")
        make_learner = names.vision_learner
        monkeypatch.setattr(
            names, "vision_learner", lambda *args, **o: make_learner(*args, **{**o, "pretrained": False})
        )


def test_configs_of_big_vision_are_python() -> None:
    page = DOCS / "coming_from.md"
    config = types.SimpleNamespace()
    run(page, code_of(page, "python big_vision"), {"config": config})
    assert config.schedule[-1][0] == ".*"


@pytest.mark.parametrize("peer", [None, pytest.param("torchvision", marks=pytest.mark.extended)])
def test_a_family_is_added_as_the_page_says(
    peer: str | None, reader: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if peer is not None:
        pytest.importorskip(peer)
    page = DOCS / "adding_a_family.md"
    (family,) = code_of(page, "python family")
    namespace: dict = {"__name__": "alexnet"}
    exec(compile(family, "alexnet.py", "exec"), namespace)
    monkeypatch.setitem(registry._FAMILY_OF, "alexnet", namespace["FAMILY"])
    run(page, code_of(page, "python check"), namespace)
    assert namespace["maps"].shape[-1] == 256
    assert namespace["logits"].shape == (2, 5)
    if peer is not None:
        run(page, code_of(page, "python parity"), namespace)


# Commands.


def commands(page: Path) -> list[str]:
    """The lines of a page that a shell is given."""
    lines = []
    for info, text in blocks(page):
        if info in ("", "bash", "console"):
            lines += text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.startswith(("transfer-jax ", "python "))]


def mentions(page: Path) -> list[str]:
    """Commands within sentences."""
    prose = BLOCK.sub("", page.read_text())
    found = re.findall(r"`(transfer-jax [^`]+)`", prose)
    return [" ".join(mention.split()) for mention in found if "|" not in mention.split("--")[0]]


def arguments_of(command: str) -> list[str]:
    given = [word for word in shlex.split(command, comments=True)[1:] if word != "…"]
    return [SHIPPED if word == "CONFIG" or word.endswith(".py") else word for word in given]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """The command line, whose commands do nothing."""

    def idle(command: Callable) -> Callable:
        @functools.wraps(command)
        def done(**values) -> None:
            del values

        return done

    load = cli.Command.load
    monkeypatch.setattr(cli.Command, "load", lambda command: idle(load(command)))
    monkeypatch.setattr(cli, "_use_caches", lambda: None)
    return cli.main


@pytest.mark.parametrize("page", [page for page in LINKED if commands(page)], ids=named)
def test_commands_of_a_page_parse(page: Path, parse: Callable, capsys: pytest.CaptureFixture) -> None:
    for command in commands(page):
        if command.startswith("python "):
            script = shlex.split(command)[1]
            assert script == "-m" or (ROOT / script).is_file(), command
            continue
        try:
            code = parse(arguments_of(command))
        except SystemExit as left:
            code = left.code
        assert code in (0, None), f"{command}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("page", [page for page in LINKED if mentions(page)], ids=named)
def test_commands_in_sentences_have_such_options(
    page: Path, parse: Callable, capsys: pytest.CaptureFixture
) -> None:
    for mention in mentions(page):
        name, *words = arguments_of(mention)
        assert name in cli.COMMANDS, mention
        options = {word.split("=")[0] for word in words if word.startswith("--") and word != "--"}
        if not options:
            continue
        base = [SHIPPED] if takes_config(cli.COMMANDS[name].load()) else []
        with pytest.raises(SystemExit):
            parse([name, *base, "--help"])
        known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
        assert options <= known, mention


# Links.


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub and the site name them."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    else:
        prose = BLOCK.sub("", page.read_text())
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"https?://", link)]


@pytest.mark.parametrize("page", [*LINKED, *NOTEBOOKS], ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


# Notebooks; `make docs` runs them.


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=named)
def test_notebooks_are_stored_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    assert cells[0]["source"][0].startswith("# ")
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


# Public names.

MODULES = [
    *("freezing", "models", "weights", "data", "features", "training", "config", "studies"),
    *("diagnostics", "report", "report.page", "report.trackers"),
]


def public_names(module: types.ModuleType) -> list[str]:
    own = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    ]
    return list(getattr(module, "__all__", own))


def documented(module: str) -> set[str]:
    """The names of a module that the pages of the API, or of recipes, show."""
    shown: set[str] = set()
    for page in [*(DOCS / "api").glob("*.md"), DOCS / "recipes.md"]:
        for found in re.finditer(r"^\.\. auto(\w+):: (\S+)\n((?:   .*\n)*)", page.read_text(), re.MULTILINE):
            kind, target, options = found.groups()
            if kind != "module":
                shown.add(target.rpartition(".")[2])
            elif target == module and ":members:" in options:
                excluded = re.search(r":exclude-members: (.*)", options)
                names = set(public_names(importlib.import_module(module)))
                shown |= names - set(excluded[1].split(", ") if excluded else ())
    return shown


@pytest.mark.parametrize("part", MODULES)
def test_public_names_are_described(part: str) -> None:
    module = importlib.import_module(f"transfer_jax.{part}")
    assert module.__doc__
    assert set(public_names(module)) <= documented(module.__name__)
    for name in public_names(module):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_names_of_the_package_lead_to_their_page() -> None:
    paths = re.findall(r"^   ~(\S+)$", (DOCS / "api/transfer_jax.md").read_text(), re.MULTILINE)
    found = {path.rpartition(".")[2]: path for path in paths}
    assert set(found) == set(transfer_jax.__all__)
    for name, path in found.items():
        module, _, attribute = path.rpartition(".")
        assert getattr(importlib.import_module(module), attribute) is getattr(transfer_jax, name)


def test_every_recipe_has_its_section() -> None:
    page = (DOCS / "recipes.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(dict.fromkeys(sections))
    assert set(sections) == set(RECIPES)
    for name, text in sections.items():
        assert f"schedule = {name}(" in text
        assert f".. autofunction:: transfer_jax.freezing.recipes.{name}\n" in text


def test_every_command_is_mentioned() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    for name in cli.COMMANDS:
        assert re.search(rf"\btransfer-jax {name}\b", pages), name
