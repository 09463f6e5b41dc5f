"""Reading order and lines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pypdfium2
import pytest

from inference_server.tasks.documents.layout.reading_order import reading_order
from inference_server.tasks.documents.layout.rows import Fragment
from inference_server.tasks.documents.pdf.layer import read_layer
from inference_server.tasks.documents.values import Word
from tests.support.documents.composed_pages import PAIRED_STYLES, ComposedPage, columns, paired_form
from tests.support.documents.pdf import pdf


def fragment(text: str, left: float, top: float, width: float = 0, height: float = 20, confidence: float = 1.0) -> Fragment:
    right, bottom = left + (width or 10 * len(text)), top + height
    quad = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    return Fragment(quad=quad, words=tuple(Word(text=word, confidence=confidence, polygon=quad) for word in text.split()))


def column(name: str, left: float, top: float, count: int = 6, width: float = 300) -> list[Fragment]:
    return [fragment(f"{name} {index}", left, top + 30 * index, width) for index in range(count)]


def texts(fragments: list[Fragment]) -> list[str]:
    shuffled = [fragments[index] for index in np.random.default_rng(7).permutation(len(fragments))]
    return [line.text for line in reading_order(shuffled)]


def turned(fragments: list[Fragment], degrees: float) -> list[Fragment]:
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [Fragment(quad=(item.quad @ rotation).astype(np.float32), words=item.words) for item in fragments]


def test_nothing_is_no_lines() -> None:
    assert () == reading_order([])


def test_fragments_of_one_row_are_one_line() -> None:
    (line,) = reading_order([fragment("g/dL", 400, 12), fragment("Hemoglobin", 10, 10), fragment("13.5", 250, 9)])
    assert "Hemoglobin 13.5 g/dL" == line.text
    assert [[10, 9], [440, 9], [440, 32], [10, 32]] == line.polygon.tolist()


def test_a_line_has_the_mean_confidence_of_its_characters() -> None:
    (line,) = reading_order([fragment("abc", 0, 0, confidence=0.9), fragment("d", 100, 0, confidence=0.5)])
    assert 0.8 == pytest.approx(line.confidence)


def test_two_columns_are_read_one_after_the_other() -> None:
    left, right = column("left", 50, 100), column("right", 400, 100)
    assert [f"{name} {index}" for name in ("left", "right") for index in range(6)] == texts(left + right)


def test_columns_whose_lines_do_not_align_are_read_one_after_the_other() -> None:
    assert [f"{name} {index}" for name in ("left", "right") for index in range(6)] == texts(
        column("left", 50, 100) + column("right", 400, 111)
    )


def test_three_columns_below_a_title_and_above_a_foot() -> None:
    title, foot = fragment("title", 50, 40, 1000), fragment("foot", 300, 320, 500)
    columns = [item for number in range(3) for item in column(f"column{number}", 50 + 350 * number, 100)]
    expected = ["title", *(f"column{number} {index}" for number in range(3) for index in range(6)), "foot"]
    assert expected == texts([title, *columns, foot])


def test_a_side_bar_beside_longer_text_is_read_by_itself() -> None:
    side, text = column("side", 50, 108, 5, width=170), column("text", 260, 100, 12, width=600)
    expected = [*(f"side {index}" for index in range(5)), *(f"text {index}" for index in range(12))]
    assert expected == texts([fragment("title", 50, 40, 810), *side, *text])[1:]


def test_columns_under_each_of_two_headings_stay_with_their_heading() -> None:
    parts = [
        (
            fragment(f"heading{part}", 50, 40 + 300 * part, 650),
            column(f"left{part}", 50, 100 + 300 * part),
            column(f"right{part}", 400, 100 + 300 * part),
        )
        for part in range(2)
    ]
    expected = [
        line
        for part in range(2)
        for line in (f"heading{part}", *(f"{name}{part} {index}" for name in ("left", "right") for index in range(6)))
    ]
    assert expected == texts([item for heading, left, right in parts for item in (heading, *left, *right)])


@pytest.mark.parametrize("left", [50, 400])
def test_a_heading_above_both_columns_that_is_no_wider_than_one_parts_them(left: int) -> None:
    blocks = [(column(f"left{part}", 50, 100 + 300 * part), column(f"right{part}", 400, 100 + 300 * part)) for part in range(2)]
    heading = fragment("heading", left, 330, 250, 26)
    expected = [[f"{name}{part} {index}" for name in ("left", "right") for index in range(6)] for part in range(2)]
    assert [*expected[0], "heading", *expected[1]] == texts([heading, *(item for block in blocks for side in block for item in side)])


@pytest.mark.parametrize("left", [50, 400])
def test_a_head_and_a_foot_of_both_columns_that_are_no_wider_than_one_are_read_first_and_last(left: int) -> None:
    columns = column("left", 50, 100, 12) + column("right", 400, 100, 11)
    expected = ["head", *(f"left {index}" for index in range(12)), *(f"right {index}" for index in range(11)), "foot"]
    assert expected == texts([fragment("head", left, 40, 120, 26), *columns, fragment("foot", left, 520)])


def test_columns_that_do_not_begin_and_end_together_are_read_one_after_the_other() -> None:
    for top, count in ((130, 12), (70, 12), (130, 9), (70, 15)):
        expected = [f"{name} {index}" for name, rows in (("left", 12), ("right", count)) for index in range(rows)]
        assert expected == texts(column("left", 50, 100, 12) + column("right", 400, top, count))


def test_a_heading_within_a_column_is_read_where_it_stands() -> None:
    left = [*column("left", 50, 100), fragment("heading", 50, 330, 250, 26), *column("below", 50, 400)]
    right = column("right", 400, 100, 16)
    expected = [*(f"left {index}" for index in range(6)), "heading", *(f"below {index}" for index in range(6))]
    assert [*expected, *(f"right {index}" for index in range(16))] == texts([*left, *right])


def test_a_picture_beside_a_heading_does_not_part_columns() -> None:
    left = [*column("left", 50, 100), fragment("heading", 50, 330, 250, 26), *column("below", 50, 400)]
    right = [*column("right", 400, 100, 3), *column("under", 400, 470, 4)]
    expected = [*(f"left {index}" for index in range(6)), "heading", *(f"below {index}" for index in range(6))]
    assert [*expected, *(f"right {index}" for index in range(3)), *(f"under {index}" for index in range(4))] == texts([*left, *right])


def test_rows_of_a_table_are_read_across() -> None:
    rows = [("Hemoglobin", "13.5", "g/dL", "12 - 16"), ("Leukosit", "7.2", "10^3/uL", "4 - 10"), ("Natrium", "140", "mmol/L", "135 - 145")]
    rows *= 3
    cells = [fragment(cell, 50 + 250 * place, 100 + 30 * number) for number, row in enumerate(rows) for place, cell in enumerate(row)]
    assert [" ".join(row) for row in rows] == texts(cells)


def composed_text(page: ComposedPage) -> str:
    """What is read in order of a page as it was composed: nothing is recognised."""
    document = pypdfium2.PdfDocument(pdf([page.texts], size=page.size))
    layer = read_layer(document[0], *(round(2 * side) for side in page.size))
    document.close()
    return "\n".join(line.text for line in layer.lines)


@pytest.mark.parametrize("style", PAIRED_STYLES)
def test_rows_of_a_form_whose_pairs_stand_in_two_columns_are_read_across(style: str) -> None:
    pages = [paired_form(seed, style, rows) for seed in range(8) for rows in (5, 16)]
    assert [page.truth for page in pages] == [composed_text(page) for page in pages]


@pytest.mark.parametrize("count", [2, 3])
def test_composed_columns_of_running_text_are_read_one_after_the_other(count: int) -> None:
    pages = [columns(seed, count) for seed in range(4)]
    assert [page.truth for page in pages] == [composed_text(page) for page in pages]


def test_labels_are_read_with_their_values_although_both_columns_are_full() -> None:
    labels = [fragment(f"Label of row {index}:", 50, 100 + 30 * index, 180) for index in range(6)]
    values = [fragment(f"value of row {index}", 260, 100 + 30 * index, 180) for index in range(6)]
    assert [f"Label of row {index}: value of row {index}" for index in range(6)] == texts(labels + values)


GLOSSARY = "Term {0}: its definition on one full line"
DIALOGUE = ("ANNA: she says {0} and goes on", "and on until line {0} is full")
COLONS_AT_ENDS = ("what {0} leads to is this:", "which is told in the line {0}")
# Of running text that wraps: the second line of an entry is as long as what is left.
WRAPPED = ("Term {0}: a definition that begins here", "goes on in {0}")


@pytest.mark.parametrize(
    ("left", "right", "widths"),
    [
        ((GLOSSARY,), (GLOSSARY,), (300,)),
        (DIALOGUE, DIALOGUE, (300,)),
        (COLONS_AT_ENDS, ("running text {0} beside it",), (300,)),
        (WRAPPED, WRAPPED, (290, 120, 280, 300, 270, 180, 240, 260)),
    ],
    ids=["glossary", "dialogue", "colons at the left column's ends", "entries of two lines"],
)
def test_running_text_with_colons_is_read_column_by_column(left: tuple[str, ...], right: tuple[str, ...], widths: tuple[int, ...]) -> None:
    lines = [
        (lines[index % len(lines)].format(f"{name}{index}"), x, 100 + 30 * index, widths[index % len(widths)])
        for name, lines, x in (("left", left, 50), ("right", right, 420))
        for index in range(16)
    ]
    assert [line[0] for line in lines] == texts([fragment(*line) for line in lines])


def test_a_form_of_which_half_the_rows_have_labels_is_read_across_where_they_end_early() -> None:
    rows = [(f"Label {index}: value", 225) if index % 2 else (f"which goes on in row {index}", 300) for index in range(8)]
    halves = [fragment(text, x, 100 + 30 * index, width) for index, (text, width) in enumerate(rows) for x in (50, 420)]
    assert [f"{text} {text}" for text, _ in rows] == texts(halves)


def test_a_form_of_which_one_side_is_full_is_read_across() -> None:
    halves = [fragment(f"Label {index}: value", x, 100 + 30 * index, width) for index in range(6) for x, width in ((50, 300), (420, 300))]
    halves[-1] = fragment("Label 5: value", 420, 250, 250)
    assert [f"Label {index}: value Label {index}: value" for index in range(6)] == texts(halves)


def test_pairs_whose_rows_stand_at_other_heights_are_read_column_by_column() -> None:
    left, right = column("label: left", 50, 100), column("label: right", 400, 113)
    assert [f"label: {name} {index}" for name in ("left", "right") for index in range(6)] == texts(left + right)


def test_columns_of_lists_are_read_one_after_the_other() -> None:
    points = [fragment("-", left, 100 + 30 * index, 10) for left in (50, 400) for index in range(6)]
    assert [f"- {name} {index}" for name in ("left", "right") for index in range(6)] == texts(
        [*points, *column("left", 90, 100, width=260), *column("right", 440, 100, width=260)]
    )


def ragged(entries: list[str], rows: int) -> list[Fragment]:
    """Entries down the first column and on down the second, each as long as its text."""
    return [fragment(entry, 50 + 400 * (index // rows), 100 + 30 * (index % rows)) for index, entry in enumerate(entries)]


GLOSSARY_TERMS = ("Anaemia", "Biopsy", "Cyst", "Dyspnoea", "Embolus", "Fibrosis", "Gout", "Hernia", "Ileus", "Jaundice", "Lesion", "Oedema")


@pytest.mark.parametrize(
    "entries",
    [
        [f"{term}: {'what it means, told at length '[: 5 + 7 * index % 25].strip()}" for index, term in enumerate(GLOSSARY_TERMS)],
        [f"{term} {index * 7}" for index, term in enumerate(GLOSSARY_TERMS)],
        [f"{index + 1}. {term}" for index, term in enumerate(reversed(GLOSSARY_TERMS))],
        # One is misread: B as H.
        [term.replace("Biopsy", "Hiopsy") for term in GLOSSARY_TERMS],
    ],
    ids=["glossary", "index", "numbered", "misread"],
)
def test_a_list_of_short_entries_that_goes_on_in_the_next_column_is_read_down(entries: list[str]) -> None:
    assert entries == texts(ragged(entries, 6))


@pytest.mark.parametrize(
    "rows",
    [
        # Labels that happen to be in the alphabet's order beside values, and pairs whose labels go on across.
        [(term, f"value {index}") for index, term in enumerate(GLOSSARY_TERMS)],
        [(f"{left}: 1", f"{right}: 2") for left, right in zip(GLOSSARY_TERMS[::2], GLOSSARY_TERMS[1::2], strict=True)],
        [(f"{index}.", f"{index}. of 9") for index in range(1, 9)],
        [(f"{2 * index}. left", f"{2 * index + 1}. right") for index in range(8)],
        [("Nama: Siti", "Umur: 45"), ("Kota: Bandung", "Agama: Islam"), ("Status: Kawin", "Ruang: 3")] * 2,
    ],
    ids=["table", "pairs in order across", "numbers twice", "numbered across", "form"],
)
def test_rows_that_only_look_like_lists_are_read_across(rows: list[tuple[str, str]]) -> None:
    cells = [fragment(cell, 50 + 400 * place, 100 + 30 * index) for index, row in enumerate(rows) for place, cell in enumerate(row)]
    assert [" ".join(row) for row in rows] == texts(cells)


@pytest.mark.parametrize("degrees", [-15, -3, 3, 15])
def test_a_page_that_is_askew_is_read_like_a_straight_one(degrees: float) -> None:
    fragments = column("left", 50, 100, 12) + column("right", 400, 100, 12)
    assert texts(fragments) == texts(turned(fragments, degrees))


def warped(fragments: list[Fragment], drop: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[Fragment]:
    """Fragments moved down, each corner by what `drop` says of its place."""
    quads = [item.quad + np.stack([np.zeros(4), drop(item.quad[:, 0], item.quad[:, 1])], axis=1) for item in fragments]
    return [Fragment(quad=quad.astype(np.float32), words=item.words) for item, quad in zip(fragments, quads, strict=True)]


@pytest.mark.parametrize(
    "drop",
    [lambda x, y: 25 * np.sin(np.pi * x / 1000), lambda x, y: (y - 300) / 300 * 0.06 * x],
    ids=["curved", "seen from the side"],
)
def test_rows_of_a_bent_page_are_read_across(drop: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    rows = [("Hemoglobin", "13.5", "g/dL", "12 - 16 usual"), ("Leukosit", "7.2", "10^3/uL", "4 - 10 usual")] * 8
    cells = [fragment(cell, 50 + 250 * place, 40 + 32 * number) for number, row in enumerate(rows) for place, cell in enumerate(row)]
    assert [" ".join(row) for row in rows] == texts(warped(cells, drop))


def test_close_lines_are_not_joined() -> None:
    assert ["first line", "second line"] == texts([fragment("first line", 0, 0, 200), fragment("second line", 5, 14, 200)])


def test_text_that_runs_upwards_keeps_to_itself() -> None:
    stamp = fragment("COPY", 600, 100, 20, 200)
    assert {"COPY", "left 0", "left 5"} <= set(texts([*column("left", 50, 100), stamp]))
