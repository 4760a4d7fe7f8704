import re
from xml.etree import ElementTree

import pytest

from transfer_jax.report.page.compact_svg import compact_svg

SVG = """<svg xmlns="http://www.w3.org/2000/svg" class="marks" width="40" height="30" viewBox="0 0 40 30">
<g fill="none">{}</g></svg>"""


def inside(text: str) -> str:
    """The compact SVG of some elements, without its outer tags and spaces."""
    found = compact_svg(SVG.format(text), "p-").replace("\n", "")
    return re.sub(r"^<svg[^>]*>|</svg>$", "", found).replace(" />", "/>")


def test_it_scales_and_has_no_namespace():
    start = compact_svg(SVG.format('<path d="M0,0h1" stroke="red"/>'), "p-").split(">")[0]
    assert start == '<svg viewBox="0 0 40 30" width="40" aria-hidden="true"'


@pytest.mark.parametrize(
    ("element", "expected"),
    [
        ('<path class="background" d="M0,0h1v1h-1Z"/>', ""),
        ('<path d="" display="none" stroke="red"/>', ""),
        ("<g><g/></g>", ""),
        ("<text>a&lt;b</text>", '<g fill="none"><text>a&lt;b</text></g>'),
        ('<text transform="translate(1.26,-2)">a</text>', '<g fill="none"><text x="1.3" y="-2">a</text></g>'),
        (
            '<path d="M2.739,0A2.739,2.739,0,1,1,-2.739,0A2.739,2.739,0,1,1,2.739,0" fill="red" opacity="1" '
            'transform="translate(3.14159,1e-9)"/>',
            '<g fill="none"><circle fill="red" r="2.7" cx="3.1" cy="0"/></g>',
        ),
        (
            '<path d="M1.23456,-0.01L2e-12,3" stroke="red" stroke-width="1"/>',
            '<g fill="none"><path d="M1.2,0L0,3" stroke="red"/></g>',
        ),
        (
            '<g><path d="M0,0h1" stroke="red"/><path d="M1,1h1" stroke="red"/></g>',
            '<g fill="none"><g stroke="red"><path d="M0,0h1"/><path d="M1,1h1"/></g></g>',
        ),
        (
            '<path d="M0,0h1" stroke="red"/><path d="M1,1h1" stroke="blue"/>',
            '<g fill="none"><path d="M0,0h1" stroke="red"/><path d="M1,1h1" stroke="blue"/></g>',
        ),
    ],
)
def test_elements_become_short(element, expected):
    assert inside(element) == expected.replace('<g fill="none"></g>', "")


def test_ids_are_distinct_and_references_follow():
    text = '<g clip-path="url(#clip1)"><path d="M0,0h1" stroke="url(#shade)"/></g>'
    found = inside(f'<defs><clipPath id="clip1"><rect x="0"/></clipPath></defs>{text}')
    assert 'id="p-clip1"' in found
    assert 'clip-path="url(#p-clip1)"' in found
    assert 'stroke="url(#p-shade)"' in found


def test_a_drawing_stays_a_drawing():
    found = compact_svg(SVG.format('<g><text fill="red">two</text><text fill="red">more</text></g>'), "")
    assert [each.text for each in ElementTree.fromstring(found).iter("text")] == ["two", "more"]
