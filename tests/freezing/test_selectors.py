import pytest

from transfer_jax.freezing.block_groups import group_by_block
from transfer_jax.freezing.selectors import (
    Selector,
    SelectorError,
    all_,
    blocks,
    from_,
    head,
    match,
    parse,
    role,
    top,
)

BLOCKS = ("stem", "blocks.1", "blocks.2", "blocks.11", "layer4.0", "layer4.1")
PATHS = tuple(
    f"{where}/{part}"
    for where in (*(f"backbone/{name}" for name in BLOCKS), "head")
    for part in (
        ("classifier/bias", "classifier/kernel") if where == "head" else ("conv/kernel", "norm/bias")
    )
)


def chosen(selector: Selector) -> set[str]:
    return set(selector.select(group_by_block(PATHS, BLOCKS)))


def of(*names: str) -> set[str]:
    return {path for path in PATHS if path.split("/")[0 if path.startswith("head") else 1] in names}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("head", of("head")),
        ("all_()", set(PATHS)),
        ("top(0)", of("head")),
        ("top(2)", of("layer4.0", "layer4.1", "head")),
        ("top(6)", set(PATHS)),
        ("from_('blocks.11')", of("blocks.11", "layer4.0", "layer4.1", "head")),
        ("from_('layer4')", of("layer4.0", "layer4.1", "head")),
        ("from_('layer4.1')", of("layer4.1", "head")),
        ("from_('stem')", set(PATHS)),
        ("blocks('blocks.1')", of("blocks.1")),  # not blocks.11
        ("blocks('blocks')", of("blocks.1", "blocks.2", "blocks.11")),
        ("blocks('stem', 'layer4')", of("stem", "layer4.0", "layer4.1")),
        ("match('blocks.*kernel$')", {f"backbone/blocks.{i}/conv/kernel" for i in (1, 2, 11)}),
        ("role('norm')", {f"backbone/{name}/norm/bias" for name in BLOCKS}),
        ("role('bias')", {path for path in PATHS if path.endswith("bias")}),
        ("role('kernel')", {path for path in PATHS if path.endswith("kernel")}),
        ("head | blocks('stem')", of("head", "stem")),
        ("top(2) & role('bias')", {p for p in of("layer4", "layer4.0", "layer4.1", "head") if "bias" in p}),
        ("~head", set(PATHS) - of("head")),
        ("top(2) & ~role('norm')", of("layer4.0", "layer4.1", "head") - {p for p in PATHS if "norm" in p}),
        ("head | top(1) & ~head", of("layer4.1", "head")),
    ],
)
def test_selected_parameters_and_expressions(text, expected):
    selector = parse(text)
    assert chosen(selector) == expected
    again = parse(str(selector))
    assert str(again) == str(selector)
    assert chosen(again) == expected


def test_functions_and_expressions_agree():
    built = (
        (top(2) | blocks("stem"))
        & ~role("norm")
        & (all_() | head | from_("stem"))
        & match("stem|layer4|head")
    )
    assert chosen(built) == chosen(parse(built))
    assert parse(built) == built
    assert chosen(built) == {"backbone/stem/conv/kernel", *of("layer4.0", "layer4.1", "head")} - {
        path for path in PATHS if "norm" in path
    }


@pytest.mark.parametrize(
    "text",
    [
        *("", "heads", "all_", "top", "top(two)", "top(2", "top(n=2)", "top(2); head", "top(2) + head"),
        *("not head", "head - top(1)", "head.select", "'head'", "from_()", "role('norm', 'bias')"),
        *("__import__('os')", "\0"),
    ],
)
def test_invalid_expression_lists_the_choices(text):
    with pytest.raises(SelectorError, match=r"invalid selector .*use head, all_\(…\), top\(…\), from_"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("role('weights')", "unknown role 'weights'; the roles are norm, bias, kernel"),
        ("match('(')", r"match\('\('\): "),
        ("top('2')", r"top\('2'\): the number of blocks must be an integer"),
        ("top(1.5)", "must be an integer"),
    ],
)
def test_invalid_arguments_raise(text, message):
    with pytest.raises(SelectorError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("top(7)", r"top\(7\): the backbone has 6 blocks"),
        ("top(-1)", r"top\(-1\): the backbone has 6 blocks"),
        (
            "from_('blocks.3')",
            "matches no block; the blocks are stem, blocks.1, blocks.2, blocks.11, layer4.0",
        ),
        ("from_('layer')", "matches no block"),
        ("blocks('stem', 'block')", "matches no block"),
        ("match('attention')", "matches none of the 14 parameters, such as backbone/stem/conv/kernel"),
        ("head | match('attention')", "matches none"),
        ("match('.')", r"match\('\.'\) matches all 14 parameters; use all_\(\) if that is intended"),
        (
            "~(head & top(0) & blocks('stem'))",
            r"selects everything, because .*; use all_\(\) instead",
        ),
    ],
)
def test_selectors_that_match_nothing_or_everything_raise(text, message):
    with pytest.raises(SelectorError, match=message):
        parse(text).select(group_by_block(PATHS, BLOCKS))
