"""ALTO 4: the elements and attributes that its schema requires, in its order."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from inference_server.tasks.documents.outputs.alto import alto_writer
from tests.support.documents.read_pages import line, page, written

NAMESPACE = "{http://www.loc.gov/standards/alto/ns-v4#}"
# Of alto-4-4.xsd: what each element must have, and which elements may be in it, in this order.
REQUIRED = {
    "Page": {"ID", "PHYSICAL_IMG_NR"},
    "PrintSpace": {"HPOS", "VPOS", "WIDTH", "HEIGHT"},
    "TextBlock": {"ID", "HPOS", "VPOS", "WIDTH", "HEIGHT"},
    "TextLine": {"HPOS", "VPOS", "WIDTH", "HEIGHT"},
    "String": {"CONTENT"},
    "Polygon": {"POINTS"},
    "Processing": {"ID"},
}
ORDER = {
    "alto": ["Description", "Layout"],
    "Description": ["MeasurementUnit", "Processing"],
    "Layout": ["Page"],
    "Page": ["PrintSpace"],
    "PrintSpace": ["TextBlock"],
    "TextBlock": ["TextLine"],
    "Shape": ["Polygon"],
    "String": ["Shape"],
}


def parsed(content: bytes) -> ElementTree.Element:
    root = ElementTree.fromstring(content)
    for element in root.iter():
        name = element.tag.removeprefix(NAMESPACE)
        children = [child.tag.removeprefix(NAMESPACE) for child in element]
        assert REQUIRED.get(name, set()) <= set(element.keys())
        if name in ORDER:
            assert sorted(children, key=ORDER[name].index) == children
        if name == "TextLine":
            assert ("Shape", "String") == tuple(children[:2])
            assert set(children[1:]) <= {"String", "SP"}
    return root


def all_of(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return list(root.iter(f"{NAMESPACE}{name}"))


def test_lines_and_words_have_places_and_confidences() -> None:
    root = parsed(written(alto_writer(), [page(line(["Nama:", '"Siti"']), line(["Umur"], y=60))]))
    assert ["pixel"] == [element.text for element in all_of(root, "MeasurementUnit")]
    strings = all_of(root, "String")
    assert ["Nama:", '"Siti"', "Umur"] == [element.get("CONTENT") for element in strings]
    assert {"HPOS": "10", "VPOS": "30", "WIDTH": "50", "HEIGHT": "20", "WC": "0.9000"}.items() <= strings[0].attrib.items()
    assert "10.0,30.0 60.0,30.0 60.0,50.0 10.0,50.0" == next(strings[0].iter(f"{NAMESPACE}Polygon")).get("POINTS")
    assert [("60", "10")] == [(element.get("HPOS"), element.get("WIDTH")) for element in all_of(root, "SP")]
    assert ["10,50 130,50", "10,80 50,80"] == [element.get("BASELINE") for element in all_of(root, "TextLine")]
    assert "4.4" == root.get("SCHEMAVERSION")


@pytest.mark.parametrize(("degrees", "told"), [(0, None), (90, "-90.0"), (-90, "90.0"), (3, "-3.0")])
def test_a_turned_block_tells_its_angle_counter_clockwise(degrees: float, told: str | None) -> None:
    root = parsed(written(alto_writer(), [page(line(["turned"], x=150, y=150, degrees=degrees))]))
    assert [told] == [element.get("ROTATION") for element in all_of(root, "TextBlock")]


def test_lines_that_are_turned_unlike_are_blocks_of_their_own() -> None:
    lines = [line(["one"]), line(["two"], y=60), line(["side"], x=390, y=10, degrees=90), line(["three"], y=90)]
    root = parsed(written(alto_writer(), [page(*lines)]))
    assert [2, 1, 1] == [len(all_of(element, "TextLine")) for element in all_of(root, "TextBlock")]


def test_a_page_that_could_not_be_read_keeps_its_place() -> None:
    content = written(alto_writer(), [page(error="page 1 --- is <broken> --"), page(line(["two"]), number=2)])
    assert ["1", "2"] == [element.get("PHYSICAL_IMG_NR") for element in all_of(parsed(content), "Page")]
    assert b"<!-- page 1 - - - is &lt;broken&gt; - - -->" in content
