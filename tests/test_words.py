"""Texts use the words of the field: see the glossary in `docs/glossary.md`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = sorted(ROOT.glob("transfer_jax/**/*.py"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted(path for kind in ("md", "ipynb") for path in ROOT.glob(f"docs/**/*.{kind}")),
    *sorted(path for kind in ("html", "css", "js") for path in ROOT.glob(f"transfer_jax/**/*.{kind}")),
]

# A regular expression of each phrase that texts do not use, and what they use instead.
WORDS = {
    r"go(es|ing)? on(?! (with|to) the)": "continues, resumes",
    r"went on": "continued",
    r"begun": "started",
    r"anew": "again, from scratch",
    r"afresh": "again",
    r"fore(tell|tells|told)": "estimates, predicted",
    r"mend(s|ed|ing)?": "fixes",
    r"(is|are|was|were) told": "receives, is set to",
    r"carried out": "run, applied",
    r"turned around": "inverted",
    r"besides": "also",
    r"thereof": "of it",
    r"of (its|their) own accord": "automatically",
    r"asked was": "measured",
    r"(cannot|can not) be(?= *[:;,.)])": "is invalid",
    r"have not(?! been)": "lack",
    r"held[- ]still": "frozen",
    r"wish(es)?": "request",
    r"(told|said)": "logged, printed, returned",
    r"by turns": "alternately",
    r"(is|are) what": "a noun",
    r"l(ies|ie|ay) (in|under|below|on)": "is stored in",
    r"(manager|helper|engine)s?": "the name of what it does",
}
PATTERN = re.compile("|".join(rf"(?P<w{i}>\b{word}\b)" for i, word in enumerate(WORDS)), re.IGNORECASE)
USE = {f"w{i}": instead for i, instead in enumerate(WORDS.values())}
FIRST_WORDS = re.compile(r"(What|Whether|How|Where|Who|That|Whose|Which|Whoever|Whatever)\b")


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a page, or of the comments and string literals of a program, with their numbers."""
    lines = path.read_text().splitlines()
    if path.suffix != ".py":
        yield from enumerate(lines, 1)
        return
    for number, line in enumerate(lines, 1):
        _, mark, comment = line.partition("# ")
        if mark and comment:
            yield number, comment
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from enumerate(node.value.splitlines(), node.lineno)


def docstrings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the docstrings of modules, classes, functions and attributes, with their line numbers."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.lineno, node.value.value


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*CODE, *PAGES], ids=named)
def test_texts_use_the_words_of_the_field(path):
    found = [
        f"{named(path)}:{number}: {match[0]!r} (use: {USE[str(match.lastgroup)]})"
        for number, line in texts_of(path)
        for match in PATTERN.finditer(line)
    ]
    assert not found, "\n".join(sorted(set(found)))


@pytest.mark.parametrize("path", CODE, ids=named)
def test_docstrings_begin_with_a_verb_or_a_noun(path):
    found = [
        f"{named(path)}:{line}: {match[0]!r}"
        for line, text in docstrings_of(path)
        if (match := FIRST_WORDS.match(text.strip()))
    ]
    assert not found, "\n".join(found)
