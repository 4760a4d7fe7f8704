import re
from xml.etree import ElementTree

import pytest

from transfer_jax.report.page.charts import bars, curves, heat_map
from transfer_jax.report.page.elements import Column
from transfer_jax.report.page.static_chart import WIDTH, static_svg

RATES = [1e-2, 3e-4, 1e-5, 2e-7]


def rate_curve():
    rows = [{"series": "rate", "x": x, "y": rate} for x, rate in enumerate(RATES)]
    return curves(
        "T", "A.", rows, x=Column("epoch", "count"), y=Column("rate", "rate"), names=["rate"], log=True
    )


def rate_map():
    rows = [{"block": "a", "first": x, "last": x + 1, "value": rate} for x, rate in enumerate(RATES)]
    return heat_map("T", "A.", rows, blocks=["a"], x="epoch", value=Column("rate", "rate"))


def time_bars(shown="1 min 08 s · 46%"):
    rows = [{"name": name, "value": value, "shown": shown} for name, value in (("a", 68.0), ("b", 1.5))]
    return bars(
        "T", "A.", rows, names=["a", "b"], name=Column("a"), value=Column("s", "seconds"), shown="shown"
    )


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("make", [rate_curve, rate_map, time_bars])
def test_a_chart_is_drawn_as_a_small_image(make):
    svg = static_svg(make().spec)
    assert f'viewBox="0 0 {WIDTH} ' in svg
    assert "var(--" in svg
    assert len(svg) < 8000


@pytest.mark.parametrize("make", [rate_curve, rate_map])
def test_axes_have_plain_numbers(make):
    found = texts(static_svg(make().spec))
    assert {"0.001", "0.00001"} <= {*found}
    assert not [text for text in found if re.search(r"\de[-+]?\d", text)]


def test_epochs_are_whole_numbers():
    rows = [{"block": "a", "first": 0, "last": 1, "value": 0.1}]
    made = heat_map("T", "A.", rows, blocks=["a"], x="epoch", value=Column("rate", "rate"))
    found = texts(static_svg(made.spec))
    assert found[: found.index("epoch")] == ["0", "1"]


def test_the_label_of_a_bar_has_room_on_a_phone():
    spec = time_bars().spec
    highest = spec["encoding"]["x"]["scale"]["domain"][1]
    label = len("1 min 08 s · 46%") * 6.3
    assert 68 / highest * 250 + label <= 250


def test_a_chart_that_fails_is_left_to_its_script(caplog):
    assert static_svg({"mark": "no such mark", "data": {"values": []}}) == ""
    assert "drawn by its script only" in caplog.text


@pytest.mark.parametrize(("last", "shown"), [(20, ["head", "top"]), (60, ["top"])])
def test_names_of_phases_do_not_overlap(last, shown):
    rows = [{"series": "rate", "x": x, "y": 0.1} for x in range(last)]
    spans = [{"name": "head", "first": 0, "last": 5}, {"name": "top", "first": 5, "last": last}]
    made = curves(
        "T", "A.", rows, x=Column("epoch", "count"), y=Column("rate", "rate"), names=["rate"], spans=spans
    )
    assert [text for text in texts(static_svg(made.spec)) if text in ("head", "top")] == shown
