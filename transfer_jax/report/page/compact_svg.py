"""Smaller SVG: without invisible elements, default values, repeated attributes and needless digits."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_NAMESPACE = "{http://www.w3.org/2000/svg}"
_DROPPED = (
    "class",
    "role",
    "pointer-events",
    "font-family",
    "aria-hidden",
    "aria-roledescription",
    "aria-label",
)
"""Attributes without a meaning in a page that names the chart and sets the font."""
_DEFAULTS = {
    "opacity": "1",
    "stroke-width": "1",
    "text-anchor": "start",
    "transform": "translate(0,0)",
    "x2": "0",
    "y2": "0",
}
"""Attributes that have no effect with this value."""
_INHERITED = (
    "fill",
    "fill-opacity",
    "font-size",
    "font-weight",
    "stroke",
    "stroke-dasharray",
    "stroke-opacity",
    "stroke-width",
    "text-anchor",
)
"""Attributes that elements inherit from their group."""
_NUMBER = re.compile(r"-?\d*\.\d+(?:e[-+]?\d+)?|-?\d+e[-+]?\d+")
_SHIFT = re.compile(r"translate\((-?[\d.]+),(-?[\d.]+)\)")
_CIRCLE = re.compile(r"M([\d.]+),0A\1,\1,0,1,1,-\1,0A\1,\1,0,1,1,\1,0Z?")
_REFERENCE = re.compile(r"url\(#")


def compact_svg(text: str, prefix: str) -> str:
    """Returns the SVG element of a drawing, smaller and with the same look, to be part of an HTML page.

    It has a `viewBox`, its width in pixels, and no namespace.

    Args:
        text: The SVG file.
        prefix: The start of all ids of the element, which distinguishes them from others on the page.
    """
    root = ElementTree.fromstring(text)
    _clean(root, prefix)
    _compact(root)
    root.attrib = {"viewBox": root.attrib["viewBox"], "width": root.attrib["width"], "aria-hidden": "true"}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def _clean(element: Element, prefix: str) -> None:
    """Removes the namespace and needless attributes of all elements, and makes their ids distinct."""
    element.tag = element.tag.removeprefix(_NAMESPACE)
    for name, value in list(element.attrib.items()):
        if name in _DROPPED or (_DEFAULTS.get(name) == value and element.tag != "linearGradient"):
            del element.attrib[name]
        elif name == "id":
            element.set(name, prefix + value)
        elif name in ("d", "transform"):
            element.set(name, _NUMBER.sub(_rounded, value))
        else:
            element.set(name, _REFERENCE.sub(f"url(#{prefix}", value))
    for child in element:
        _clean(child, prefix)
    if element.tag == "path" and (circle := _CIRCLE.fullmatch(element.get("d", ""))):
        element.tag = "circle"
        del element.attrib["d"]
        element.set("r", circle[1])
    if element.tag in ("circle", "text"):
        _place(element)


def _rounded(found: re.Match[str]) -> str:
    number = f"{float(found[0]):.1f}"
    return number.removesuffix(".0") if number != "-0.0" else "0"


def _place(element: Element) -> None:
    """Replaces the shift of a circle or a text by its coordinates."""
    names = ("cx", "cy") if element.tag == "circle" else ("x", "y")
    if shift := _SHIFT.fullmatch(element.get("transform", "")):
        del element.attrib["transform"]
        element.attrib |= dict(zip(names, shift.groups(), strict=True))


def _compact(element: Element) -> None:
    """Removes invisible elements and groups without attributes, and moves common attributes to groups."""
    children = list(_visible_children(element))
    element[:] = children
    if element.tag != "g" or len(children) < 2:
        return
    for name in _INHERITED:
        values = {child.get(name) for child in children}
        if len(values) == 1 and None not in values:
            element.set(name, str(values.pop()))
            for child in children:
                del child.attrib[name]


def _visible_children(element: Element) -> Iterator[Element]:
    for child in element:
        if child.tag == "defs" or element.tag == "defs":
            yield child
            continue
        if child.get("display") == "none" or not _has_shape(child):
            continue
        _compact(child)
        if child.tag == "g" and not child.attrib:
            yield from child
        elif child.tag != "g" or len(child):
            yield child


def _has_shape(element: Element) -> bool:
    """Returns whether an element can be seen: an area has a fill or a stroke, and a line has a length."""
    if element.tag == "path":
        return bool(element.get("d")) and bool(element.get("fill") or element.get("stroke"))
    return element.tag != "text" or bool(element.text)
