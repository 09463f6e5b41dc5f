"""Specks between the text of a page."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.images.ink import print_of
from inference_server.tasks.documents.images.margins import Area
from inference_server.tasks.documents.images.specks import without_specks

LETTER, PAPER = (12, 8), (200, 190, 180)


def page(specks: int, letters: int = 60) -> np.ndarray:
    """Letters with a dot above each, and below them specks, on tinted paper."""
    image = np.full((900, 800, 3), PAPER, np.uint8)
    for number in range(letters):
        left, top = 40 + 24 * (number % 30), 40 + 40 * (number // 30)
        image[top : top + LETTER[0], left : left + LETTER[1]] = 0
        image[top - 4 : top - 2, left + 3 : left + 5] = 0
    for number in range(specks):
        left, top = 40 + 14 * (number % 50), 200 + 14 * (number // 50)
        image[top : top + 3, left : left + 2] = 20
    return image


@pytest.mark.parametrize(("specks", "is_speckled"), [(0, False), (60, False), (600, True)])
def test_a_page_with_many_more_specks_than_letters_is_speckled(specks: int, is_speckled: bool) -> None:
    gray = page(specks)[:, :, 0]
    found = print_of(gray, Area(left=0, top=0, right=gray.shape[1], bottom=gray.shape[0]))
    assert is_speckled == found.is_speckled
    assert LETTER[0] >= (found.letter_height or 0) > 8


def test_specks_become_paper_and_letters_keep_their_dots() -> None:
    assert (page(0) == without_specks(page(600))).all()


def test_a_grey_page_loses_its_specks_too() -> None:
    assert (page(0)[:, :, 0] == without_specks(page(600)[:, :, 0])).all()


def test_dots_that_stand_close_are_print() -> None:
    image = page(0)
    image[600:618:3, 100:112:3] = 0
    assert (image == without_specks(image)).all()


def test_light_specks_on_dark_paper_are_specks_too() -> None:
    assert (255 - page(0) == without_specks(255 - page(600))).all()
