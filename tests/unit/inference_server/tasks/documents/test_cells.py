"""Rows of printed cells with a letter each, and what only looks like them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from inference_server.tasks.documents.cells import cell_rows_of, without_rules
from inference_server.tasks.documents.values import Page
from tests.support.composed_pages import ComposedPage, cells_form, form, lab_report
from tests.support.worn_pages import Wear, scanned

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
    values = [line.split() for line in page.truth.splitlines()[1:-1]]

    rows = cell_rows_of(picture(page, wear))

    assert len(values) == len(rows)
    wide = max(row.rules[-1].right - row.rules[0].left for row in rows)
    assert all(outline[:, 0].max() - outline[:, 0].min() <= wide for row in rows for outline in row.outlines())


def test_each_run_of_letters_has_an_outline() -> None:
    [row] = cell_rows_of(grid([list("SITI RAHAYU  17 ")], wide=36, high=40))

    assert list("1111011111100110") == [str(int(filled)) for filled in row.filled]
    assert [(0, 4), (5, 11), (13, 15)] == [
        (round((outline[:, 0].min() - 40) / 36), round((outline[:, 0].max() - 40) / 36)) for outline in row.outlines()
    ]


@pytest.mark.parametrize(
    "page",
    [
        lambda: picture(form(1), Wear(dpi=150)),
        lambda: picture(lab_report(1), Wear(dpi=200)),
        lambda: grid([["12", "345", "67", "89", "1011"]], wide=44, high=40),
        lambda: grid([list("12345"), list("67890"), list("24680")], wide=36, high=30),
        lambda: grid([["1", "2", "3", "4", "5"]], wide=90, high=40),
        lambda: grid([[""] * 8], wide=36, high=40),
        lambda: grid([["A", "B", "C"]], wide=36, high=40),
        lambda: np.full((200, 300, 3), 255, np.uint8),
        lambda: np.zeros((200, 300, 3), np.uint8),
        lambda: np.full((1, 1, 3), 255, np.uint8),
    ],
    ids=["form", "report", "numbers", "several rows", "a scale", "empty cells", "three cells", "blank", "black", "a pixel"],
)
def test_what_only_looks_like_cells_with_letters_is_left_alone(page: Callable[[], Page]) -> None:
    assert () == cell_rows_of(page())


def test_rules_vanish_and_letters_stay() -> None:
    page = grid([list("HAKIM 1985")], wide=36, high=40)
    rows = cell_rows_of(page)

    cleaned, blank = without_rules(page, rows)

    dark = (cleaned < 128).any(axis=2)
    assert not dark[38:44].any(), "no border is left"
    assert 9 == np.count_nonzero(np.diff(dark.any(axis=0).astype(int)) > 0)
    assert (blank == 255).all()
    assert page.min() == 0, "the page as it came is not touched"
