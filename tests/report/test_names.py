import pytest

from transfer_jax.report.names import abridge, visible


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((name, name) for name in ("a", "$1_$5", "[bold]x", "<b>&'\"", "=1+1", "שלום", "日本", "a b")),
        *((name, name) for name in ("👩\u200d👩\u200d👧", "e\u0301", "\\n")),
        ("two\nlines\r", r"two\nlines\r"),
        ("\t", r"\t"),
        ("a\0b\x1b[31m", r"a\x00b\x1b[31m"),
        ("caf\udce9", r"caf\udce9"),
        ("a\u2028b", r"a\u2028b"),
        ("", "“”"),
        ("  ", "“  ”"),
        (" a", "“ a”"),
        ("\u200b", "“\u200b”"),
        (3, "3"),
    ],
)
def test_every_character_is_visible(name, shown):
    assert visible(name) == shown


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["short", "x" * 10], ["short", "x" * 10]),
        (["abcdefghijklmnop"], ["abcdef…nop"]),
        (["日本日本日本日本"], ["日本日…本"]),
        (["a" * 20 + "x" + "b" * 20, "a" * 20 + "y" + "b" * 20], ["aaaa…bb #1", "aaaa…bb #2"]),
        (["a\n", r"a\n"], [r"a\n #1", r"a\n #2"]),
        (["x" * 20, "x" * 20], ["xxxxxx…xxx"] * 2),
        (["abcdefghijkl" + "e\u0301" * 3], ["abcdef…" + "e\u0301" * 3]),
    ],
)
def test_long_names_are_abridged_and_stay_distinct(names, shown):
    assert abridge(names, 10) == shown
