"""hOCR: XHTML whose classes and properties are those of the specification."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from inference_server.tasks.documents.outputs.hocr import hocr_writer
from tests.support.documents.read_pages import line, page, written

XHTML = "{http://www.w3.org/1999/xhtml}"


def parsed(content: bytes) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(content)
    assert f"{XHTML}html" == root.tag
    return [element for element in root.iter() if element.get("class")]


def properties(element: ElementTree.Element) -> dict[str, str]:
    return dict(part.strip().split(" ", 1) for part in element.get("title", "").split(";"))


def test_pages_lines_and_words_have_their_classes_boxes_and_confidences() -> None:
    found = parsed(written(hocr_writer(), [page(line(["Nama:", "<Siti>"]), line(["Umur"], y=60))]))
    assert ["ocr_page", "ocr_carea", "ocr_par", "ocr_line", "ocrx_word", "ocrx_word", "ocr_line", "ocrx_word"] == [
        element.get("class") for element in found
    ]
    sheet, _, _, first, word, second, *_ = found
    assert ("0 0 400 300", "0") == (properties(sheet)["bbox"], properties(sheet)["ppageno"])
    assert ("10 30 130 50", "20.0", "90") == (properties(first)["bbox"], properties(first)["x_size"], properties(first)["x_wconf"])
    assert ("Nama:", "<Siti>", "10 30 60 50") == (word.text, second.text, properties(word)["bbox"])
    assert "Nama: <Siti>" == "".join(first.itertext()).strip()
    assert len({element.get("id") for element in found}) == len(found)


@pytest.mark.parametrize(
    ("degrees", "told"), [(0, "baseline 0.0000 0.0"), (3, "baseline 0.0524 "), (90, "textangle 270.0"), (180, "textangle 180.0")]
)
def test_the_slope_of_a_line_is_told(degrees: float, told: str) -> None:
    content = written(hocr_writer(), [page(line(["level"], x=150, y=150, degrees=degrees))]).decode()
    assert told in content.replace("-0.0;", "0.0;")


def test_a_page_that_could_not_be_read_keeps_its_place_and_says_why() -> None:
    found = parsed(written(hocr_writer(), [page(error='page 1 is "broken" & lost'), page(line(["two"]), number=2)]))
    assert ['page 1 is "broken" & lost', None] == [element.get("data-error") for element in found if element.get("class") == "ocr_page"]


def test_what_xml_cannot_hold_is_replaced() -> None:
    found = parsed(written(hocr_writer(), [page(line(["a\x00b\x1fc"]))]))
    assert "a\ufffdb\ufffdc" == found[-1].text


def test_a_document_without_pages_is_whole() -> None:
    assert [] == parsed(written(hocr_writer(), []))


def test_capabilities_name_every_class_that_is_used() -> None:
    content = written(hocr_writer(), [page(line(["a"]))]).decode()
    capabilities = re.search(r'name="ocr-capabilities" content="([^"]+)"', content)
    assert capabilities is not None
    assert {element.get("class") for element in parsed(content.encode())} <= set(capabilities[1].split())
