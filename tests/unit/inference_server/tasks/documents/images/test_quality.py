"""What is measured on a page's picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference_server.tasks.documents.images.quality import page_quality
from inference_server.tasks.documents.values import Limits, Line, Page, PageQuality
from tests.support.documents.opened_pages import opened
from tests.support.documents.pdf import Text, pdf

CARD = [Text(text=f"Nama : BUDI SANTOSO {row}", x=20, y=30 + 20 * row) for row in range(8)]


def card(dpi: int = 200, paper: tuple[int, int, int] = (190, 215, 235)) -> tuple[Page, tuple[Line, ...]]:
    """A card of coloured paper, and the lines on it."""
    document = opened(pdf([CARD], size=(240, 200)), limits=Limits(), dpi=dpi)
    layer = document.text_layer(0)
    picture = document.page(0).astype(np.float32) / 255 * paper
    return picture.astype(np.uint8), layer.lines


def sharpness(quality: PageQuality) -> float:
    assert quality.sharpness is not None
    return quality.sharpness


def test_a_blurred_page_is_less_sharp() -> None:
    page, lines = card()
    measured = [sharpness(page_quality(cv2.GaussianBlur(page, None, sigma), lines)) for sigma in (0.3, 2, 4, 8)]
    assert sorted(measured, reverse=True) == measured
    assert measured[0] > 4 * measured[2]


def test_sharpness_hangs_on_neither_resolution_nor_contrast() -> None:
    usual = sharpness(page_quality(*card()))
    large = sharpness(page_quality(*card(dpi=400)))
    page, lines = card()
    pale = sharpness(page_quality((128 + page.astype(int) // 2).astype(np.uint8), lines))
    assert (usual, usual) == pytest.approx((large, pale), rel=0.25)


@pytest.mark.parametrize("degrees", [0, 45, 90, 135])
def test_a_page_that_moved_while_it_was_taken_is_not_sharp_in_whatever_direction(degrees: int) -> None:
    """By half of the text's height: hardly a field of a card is read right then. What moved by less is sharper."""
    page, lines = card()

    def moved(by: int) -> float:
        path = np.zeros((by, by), np.float32)
        path[by // 2] = 1
        turned = cv2.warpAffine(path, cv2.getRotationMatrix2D((by // 2, by // 2), degrees, 1), (by, by))
        return sharpness(page_quality(cv2.filter2D(page, -1, turned / turned.sum()), lines))

    assert moved(13) < 0.02 < moved(5)


def lit(page: Page, width: float) -> Page:
    """With a lamp's reflection in its middle, whose brightness falls off within so much of the page's width."""
    height, wide = page.shape[:2]
    y, x = np.mgrid[:height, :wide]
    light = 330 * np.exp(-((x - 0.45 * wide) ** 2 + (y - 0.5 * height) ** 2) / (2 * (width * wide) ** 2))
    return (page + light[:, :, None]).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("paper", [190, 215, 230])
def test_text_that_fades_into_light_is_glare_though_most_of_the_paper_is_white(paper: int) -> None:
    page, lines = card(paper=(paper, paper, paper))
    assert 0 == page_quality(page, lines).glare
    assert 0.3 < page_quality(lit(page, 0.14), lines).glare


def test_white_paper_whose_edge_lies_in_a_shadow_is_no_glare() -> None:
    page, lines = card(paper=(255, 255, 255))
    shadow = np.linspace(0.85, 1.3, page.shape[1])[None, :, None]
    assert 0 == page_quality((page * shadow).clip(0, 255).astype(np.uint8), lines).glare


def test_a_burnt_spot_is_glare_and_its_share_of_the_text_is_told() -> None:
    page, lines = card()
    assert 0 == page_quality(page, lines).glare
    corners = np.concatenate([line.polygon for line in lines])
    (left, top), (right, bottom) = corners.min(axis=0).astype(int), corners.max(axis=0).astype(int)
    middle = (left + right) // 2
    page[top:bottom, middle - 25 : middle + 25] = 255
    assert 50 / (right - left) == pytest.approx(page_quality(page, lines).glare, rel=0.15)


def test_white_paper_and_white_ground_around_a_card_are_no_glare() -> None:
    assert 0 == page_quality(*card(paper=(255, 255, 255))).glare
    page, lines = card()
    wide = np.full((page.shape[0] + 400, page.shape[1] + 400, 3), 255, np.uint8)
    wide[200:-200, 200:-200] = page
    moved = tuple(Line(text=one.text, confidence=1, polygon=one.polygon + 200, words=()) for one in lines)
    assert 0 == page_quality(wide, moved).glare


def test_white_paper_under_two_cards_is_no_glare_and_a_spot_on_one_of_them_is() -> None:
    page, lines = card()
    height, width = page.shape[:2]
    sheet = np.full((2 * height + 500, width + 400, 3), 255, np.uint8)
    moved = []
    for top in (100, height + 300):
        sheet[top : top + height, 200 : 200 + width] = page
        moved += [Line(text=one.text, confidence=1, polygon=one.polygon + np.array((200, top), np.float32), words=()) for one in lines]
    assert 0 == page_quality(sheet, moved).glare

    corners = moved[0].polygon
    (left, top), (right, bottom) = corners.min(axis=0).astype(int), corners.max(axis=0).astype(int)
    sheet[top - 10 : bottom + 10, left:right] = 255
    assert 0.01 < page_quality(sheet, moved).glare < 0.3


def test_a_reflection_that_comes_in_from_an_edge_is_glare_and_a_plate_along_it_is_none() -> None:
    page, lines = card()
    height, width = page.shape[:2]
    wide = np.full((height, width + 200, 3), 200, np.uint8)
    wide[:, :width] = page // 2 + 90
    reach = int(max(one.polygon[:, 0].max() for one in lines)) - 60
    plate = wide.copy()
    plate[:, reach:] = 255
    assert 0 == page_quality(plate, lines).glare
    cv2.ellipse(wide, (width + 200, height // 2), (width + 200 - reach, height // 3), 0, 0, 360, (255, 255, 255), -1)
    assert page_quality(wide, lines).glare > 0.01


def test_text_height_and_contrast_are_those_of_the_lines() -> None:
    page, lines = card()
    quality = page_quality(page, lines)
    assert 23 == pytest.approx(quality.text_height, abs=6)
    assert 0.8 == pytest.approx(quality.contrast, abs=0.1)


def test_a_page_without_text_has_no_figures() -> None:
    assert PageQuality(sharpness=None, glare=0, text_height=0, contrast=0) == page_quality(np.full((50, 50, 3), 255, np.uint8), ())
