import posixpath
import re

import pytest

from transfer_jax.report.trackers.metric_keys import MetricKeys

NAMES = ["$1", "€1", "_1", "größe", "a/../b", "..", "/x", "a//b", "a/./b", "x" * 300, "x" * 301, ""]
NAMES += ["a\n", "caf\udce9"]


@pytest.mark.parametrize("name", ["train/loss", "train/rates/blocks.1", "evaluation/per_class/größe/f1"])
def test_usual_names_stay(name):
    assert MetricKeys(r"[^\w\-. /]", 250)(name) == name


def test_keys_are_allowed_and_distinct():
    keys, whole = MetricKeys(r"[^\w\-. /]", 250), [f"per_class/{name}/f1" for name in NAMES]
    found = [keys(name) for name in whole]
    assert len({*found}) == len(NAMES)
    assert [keys(name) for name in whole] == found
    for key in found:
        assert re.fullmatch(r"[\w\-. /]{1,250}", key)
        assert posixpath.normpath(key) == key
