"""Rows of printed cells with a letter each, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from inference_server.tasks.documents.detection.cell_search import cell_rows_of
from inference_server.tasks.documents.detection.cells import without_letters, without_rules
from inference_server.tasks.documents.values import Page
from tests.support.documents.composed_pages import ComposedPage, cells_form, form, lab_report
from tests.support.documents.worn_pages import Wear, scanned

ROWS = 12


def picture(page: ComposedPage, wear: Wear) -> Page:
    return np.asarray(scanned(page, wear))


def grid(texts: list[list[str]], *, wide: int, high: int) -> Page:
    """A table whose cells are ruled, with a text in the middle of each."""
    image = Image.new("RGB", (len(texts[0]) * wide + 80, len(texts) * high + 80), "white")
    draw = ImageDraw.Draw(image)
    for row, cells in enumerate(texts):
        for column, text in enumerate(cells):
            left, top = 40 + column * wide, 40 + row * high
            draw.rectangle((left, top, left + wide, top + high), outline="black", width=2)
            draw.text((left + wide / 2, top + high / 2), text, fill="black", font=ImageFont.load_default(size=18), anchor="mm")
    return np.asarray(image)


@pytest.mark.parametrize(
    "wear",
    [Wear(dpi=150), Wear(dpi=300), Wear(dpi=100, noise=8, jpeg=60), Wear(dpi=100, blur=0.6, noise=5), Wear(dpi=150, skew_degrees=2)],
    ids=["150 dpi", "300 dpi", "noise", "blur", "askew"],
)
@pytest.mark.parametrize("gap", [0.0, 3.0], ids=["shared rules", "boxes apart"])
def test_rows_of_cells_are_found_and_their_words_outlined(wear: Wear, gap: float) -> None:
    page = cells_form(2, ROWS, gap=gap)
    # Letters of a value that there is no cell for stand beside it.
    values = [line.removeprefix(label)[1:] for line, label in zip(page.truth.splitlines()[1:-1], labels(page), strict=True)]

    rows = cell_rows_of(picture(page, wear))

    assert len(values) == len(rows)
    for value, row in zip(values, sorted(rows, key=lambda row: row.rules[0].top), strict=True):
        cells = len(row.filled)
        assert [letter != " " for letter in value.ljust(cells)[:cells]] == list(row.filled)
        assert len(value[:cells].split()) == len(row.outlines())


def labels(page: ComposedPage) -> list[str]:
    return [text.text for text in page.texts if text.x == 50][1:-1]


def cells_of(texts: str, **size: int) -> list[str]:
    """What each row that is found in a row of cells holds: 1 for something, 0 for nothing."""
    rows = cell_rows_of(grid([list(texts)], **size))
    return ["".join(str(int(filled)) for filled in row.filled) for row in rows]


def test_each_run_of_letters_has_an_outline() -> None:
    [row] = cell_rows_of(grid([list("SITI RAHAYU  17 ")], wide=36, high=40))

    assert list("1111011111100110") == [str(int(filled)) for filled in row.filled]
    assert [(0, 4), (5, 11), (13, 15)] == [
        (round((outline[:, 0].min() - 40) / 36), round((outline[:, 0].max() - 40) / 36)) for outline in row.outlines()
    ]


def test_dashes_and_points_are_held_by_their_cells() -> None:
    assert ["111111011"] == cells_of("A-B.C_ D'", wide=36, high=40)


def test_a_stroke_beside_a_rule_makes_no_second_row() -> None:
    page = grid([list("ABCDEFGHIJ")], wide=36, high=40).copy()
    page[40:80, 40 + 5 * 36 - 8 : 40 + 5 * 36 - 6] = 0

    assert 1 == len(cell_rows_of(page))


@pytest.mark.parametrize("apart", [6, 10, 14, 60])
def test_groups_of_cells_are_found_beside_each_other(apart: int) -> None:
    first, second = grid([list("ABCD")], wide=36, high=40)[:, :-39], grid([list("EFGH")], wide=36, high=40)[:, 39:]
    page = np.hstack([first, np.full((120, apart, 3), 255, np.uint8), second])

    assert 8 == sum(len(row.filled) for row in cell_rows_of(page))


def comb(digits: str) -> Page:
    """A level line with short ticks, over which the letters rise."""
    image = Image.new("RGB", (len(digits) * 22 + 80, 120), "white")
    draw = ImageDraw.Draw(image)
    draw.line((40, 80, 40 + len(digits) * 22, 80), fill="black", width=2)
    for place in range(len(digits) + 1):
        draw.line((40 + place * 22, 66, 40 + place * 22, 80), fill="black", width=2)
    for place, digit in enumerate(digits):
        draw.text((51 + place * 22, 68), digit, fill="black", font=ImageFont.load_default(size=24), anchor="mm")
    return np.asarray(image)


@pytest.mark.parametrize(
    "page",
    [
        lambda: picture(form(1), Wear(dpi=150)),
        lambda: picture(lab_report(1), Wear(dpi=200)),
        lambda: grid([["12", "345", "67", "89", "1011"]], wide=44, high=40),
        lambda: grid([list("12345"), list("67890"), list("24680")], wide=36, high=30),
        lambda: grid([["A\nB", "C\nD", "E\nF", "G\nH"]], wide=50, high=64),
        lambda: grid([["1", "2", "3", "4", "5"]], wide=90, high=40),
        lambda: grid([[""] * 8], wide=36, high=40),
        lambda: grid([["A", "B", "C"]], wide=36, high=40),
        lambda: comb("0812555014"),
        lambda: np.full((200, 300, 3), 255, np.uint8),
        lambda: np.zeros((200, 300, 3), np.uint8),
        lambda: np.full((1, 1, 3), 255, np.uint8),
    ],
    ids=[
        "form",
        "report",
        "numbers",
        "several rows",
        "two lines",
        "wide cells",
        "empty cells",
        "three cells",
        "comb",
        "blank",
        "black",
        "pixel",
    ],
)
def test_what_only_looks_like_cells_with_letters_is_left_alone(page: Callable[[], Page]) -> None:
    assert () == cell_rows_of(page())


def test_rules_vanish_and_letters_stay() -> None:
    page = grid([list("HAKIM 1985")], wide=36, high=40)
    rows = cell_rows_of(page)

    cleaned = without_rules(page, rows)

    dark = (cleaned < 128).any(axis=2)
    assert not dark[38:44].any(), "no border is left"
    assert 9 == np.count_nonzero(np.diff(dark.any(axis=0).astype(int)) > 0)
    assert (without_letters(cleaned, rows) == 255).all()
    assert page.min() == 0, "the page as it came is not touched"


def test_what_stands_between_boxes_stays() -> None:
    page = grid([list("ABCD")], wide=36, high=40)[:, :-39]
    page = np.hstack([page, np.full((120, 10, 3), 255, np.uint8), grid([list("EFGH")], wide=36, high=40)[:, 39:]])
    place = np.s_[59:62, 40 + 4 * 36 + 3 : 40 + 4 * 36 + 8]
    page[place] = 0

    assert (without_rules(page, cell_rows_of(page))[place] == 0).all()
