"""Pictures of more than eight bits a pixel."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image

from inference_server.tasks.documents.images.depth import eight_bits
from inference_server.tasks.documents.values import Limits, Page
from tests.support.documents.opened_pages import opened


def read(values: np.ndarray, kind: str = "TIFF") -> Page:
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return opened(out.getvalue(), limits=Limits()).page(0)


def printed(ground: float, ink: float) -> np.ndarray:
    """A page with a line of ink across it."""
    values = np.full((200, 300), ground)
    values[90:110, 50:250] = ink
    return values


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_whole_numbers_are_scaled_by_the_bits_that_hold_them(bits: int, kind: str) -> None:
    page = read(printed(2**bits - 1, 0).astype(np.uint16), kind)
    assert (255, 0) == (int(page[0, 0, 0]), int(page[100, 150, 0]))


def test_paper_that_is_not_white_stays_so() -> None:
    page = read(printed(700, 100).astype(np.uint16), "PNG")
    assert (700 / 1023 * 255, 100 / 1023 * 255) == pytest.approx((int(page[0, 0, 0]), int(page[100, 150, 0])), abs=1)


def test_a_dead_pixel_does_not_tell_the_range() -> None:
    values = printed(1000, 20).astype(np.uint16)
    values[3, 3] = 65_535
    page = read(values, "PNG")
    assert (True, True) == (page[0, 0, 0] > 240, page[100, 150, 0] < 10)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_no_sound_number_is_ground_and_does_not_empty_the_page(odd: float) -> None:
    values = printed(1.0, 0.0).astype(np.float32)
    values[3, 3] = odd
    page = read(values)
    assert (255, 255, 0) == (int(page[0, 0, 0]), int(page[3, 3, 0]), int(page[100, 150, 0]))


@pytest.mark.parametrize("bits", [10, 16])
def test_a_tiff_whose_higher_levels_are_darker_is_not_turned_into_its_negative(bits: int) -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, printed(0, 2**bits - 1).astype(np.uint16), photometric="miniswhite")
    page = opened(out.getvalue(), limits=Limits()).page(0)
    assert (255, 0) == (int(page[0, 0, 0]), int(page[100, 150, 0]))


def test_a_page_of_one_level_is_empty() -> None:
    assert 255 == read(np.full((50, 50), 0.3, np.float32)).min()


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_large_page_takes_little_memory_beside_its_own(kind: type) -> None:
    """The range of one of 100 megapixels was told with 1.2 GB and more."""
    values = np.full((3000, 2000), 1000, kind)
    values[2900:2920, 500:1500] = 0
    tracemalloc.start()
    try:
        page = eight_bits(values)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (True, 0) == (page[0, 0] > 240, int(page[2910, 1000]))
    assert 4 > most / values.size, "bytes a pixel"


def test_pixels_that_are_no_numbers_are_ground_wherever_they_stand_on_a_large_page() -> None:
    values = np.full((3000, 2000), 1.0, np.float32)
    values[1500:1520, 500:1500] = 0.0
    values[::500, ::500] = np.nan
    page = eight_bits(values)
    assert (255, 255, 255, 0) == (int(page[0, 0]), int(page[1000, 500]), int(page[2500, 1500]), int(page[1510, 1000]))
