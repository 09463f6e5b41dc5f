"""TSV, text and JSON."""

from __future__ import annotations

import csv
import io
import json

from inference_server.tasks.documents.outputs.plain import TextWriter
from inference_server.tasks.documents.outputs.structured import JsonWriter
from inference_server.tasks.documents.outputs.tsv import TsvWriter
from tests.support.documents.read_pages import SUMMARY, line, page, written

PAGES = (
    page(line(["Nama:", "Siti"]), line(["5\t6"], y=60), of=3),
    page(number=2, of=3, error="page 2 is broken"),
    page(line(["血圧"]), number=3, of=3),
)


def test_tsv_has_tesseracts_columns_and_levels() -> None:
    rows = list(csv.DictReader(io.StringIO(written(TsvWriter(), PAGES).decode()), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert ["level", "page_num", "block_num", "par_num", "line_num", "word_num", "left", "top", "width", "height", "conf", "text"] == list(
        rows[0]
    )
    assert "1234554512345" == "".join(row["level"] for row in rows).replace("11", "1")
    words = [row for row in rows if row["level"] == "5"]
    assert ["Nama:", "Siti", "5 6", "血圧"] == [row["text"] for row in words]
    assert ("1", "1", "2", "70", "30", "40", "20") == tuple(
        words[1][name] for name in ("page_num", "line_num", "word_num", "left", "top", "width", "height")
    )
    assert 90 == float(words[0]["conf"])
    assert {"-1"} == {row["conf"] for row in rows if row["level"] != "5"}


def test_text_has_a_form_feed_between_pages() -> None:
    assert "Nama: Siti\n5\t6\f\f血圧" == written(TextWriter(), PAGES).decode()


def test_json_has_pages_and_the_summary() -> None:
    told = json.loads(written(JsonWriter(), PAGES))
    assert [1, 2, 3] == [one["page_number"] for one in told["pages"]]
    assert {"text": "Nama:", "confidence": 0.9, "polygon": [[10, 30], [60, 30], [60, 50], [10, 50]]} == told["pages"][0]["lines"][0][
        "words"
    ][0]
    assert (None, "page 2 is broken", "ocr") == (
        told["pages"][1]["text_source"],
        told["pages"][1]["error"],
        told["pages"][2]["text_source"],
    )
    assert (SUMMARY.page_count, SUMMARY.media_type) == (told["page_count"], told["media_type"])
    assert {"pages": []}.items() <= json.loads(written(JsonWriter(), [])).items()
