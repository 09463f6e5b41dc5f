"""Which part of a page has anything on it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.tasks.documents.images.margins import Area, written_area

HEIGHT, WIDTH = 1500, 1000
TEXT = Area(left=200, top=300, right=620, bottom=420)
WHOLE = Area(left=0, top=0, right=WIDTH, bottom=HEIGHT)


def page(*, ink: int = 30, paper: int = 240) -> np.ndarray:
    gray = np.full((HEIGHT, WIDTH), paper, np.uint8)
    for row in range(4):
        for column in range(20):
            left, top = TEXT.left + 21 * column, TEXT.top + 32 * row
            cv2.putText(gray, "H", (left, top + 20), cv2.FONT_HERSHEY_SIMPLEX, 0.7, ink, 2)
    return gray


def about(area: Area) -> object:
    return pytest.approx((TEXT.left, TEXT.top, TEXT.right, TEXT.bottom), abs=12) if area is TEXT else area


def sides(area: Area) -> tuple[int, int, int, int]:
    return area.left, area.top, area.right, area.bottom


@pytest.mark.parametrize(("ink", "paper"), [(30, 240), (215, 240), (240, 30)], ids=["dark", "faint", "light on dark"])
def test_blank_margins_are_left_out(ink: int, paper: int) -> None:
    assert about(TEXT) == sides(written_area(page(ink=ink, paper=paper)))


@pytest.mark.parametrize("level", [4, 8, 12])
def test_noise_is_nothing(level: int) -> None:
    noise = np.random.default_rng(level).normal(0, level, (HEIGHT, WIDTH))
    assert about(TEXT) == sides(written_area((page() + noise).clip(0, 255).astype(np.uint8)))


def test_specks_and_the_edges_of_the_sheet_are_nothing() -> None:
    gray = page()
    gray[:, :3], gray[-4:] = 0, 0
    generator = np.random.default_rng(1)
    gray[generator.integers(0, HEIGHT, 40), generator.integers(0, WIDTH, 40)] = 0
    assert about(TEXT) == sides(written_area(gray))


def test_a_letter_alone_at_the_foot_of_a_page_is_something() -> None:
    gray = page()
    cv2.putText(gray, "1", (500, 1440), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 30, 1)
    area = written_area(gray)
    assert area.bottom == pytest.approx(1440, abs=12)


@pytest.mark.parametrize("level", [0, 255])
def test_a_blank_page_is_taken_whole(level: int) -> None:
    assert WHOLE == written_area(np.full((HEIGHT, WIDTH), level, np.uint8))


def test_a_page_that_is_all_noise_is_taken_whole() -> None:
    assert WHOLE == written_area(np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (5, 5), (900, 7), (9, 9)])
def test_a_page_of_a_few_pixels_is_taken_whole(shape: tuple[int, int]) -> None:
    assert Area(left=0, top=0, right=shape[1], bottom=shape[0]) == written_area(np.zeros(shape, np.uint8))


def test_a_page_that_is_full_of_text_is_taken_nearly_whole() -> None:
    gray = np.full((HEIGHT, WIDTH), 240, np.uint8)
    for top in range(20, HEIGHT, 24):
        cv2.putText(gray, "full of text " * 12, (10, top), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 30, 2)
    assert (0, 0, WIDTH, HEIGHT) == pytest.approx(sides(written_area(gray)), abs=16)
