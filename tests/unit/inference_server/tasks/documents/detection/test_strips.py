"""Long pages: how they are cut into strips, and how what two strips saw becomes one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from inference_server.tasks.documents.detection.detector import DetectedText, DetectionSettings
from inference_server.tasks.documents.detection.strips import Strip, joined, strips_of
from inference_server.tasks.documents.values import Outline, Page

SETTINGS = DetectionSettings()


def blank(height: int, width: int) -> Page:
    return np.full((height, width, 3), 255, np.uint8)


def box(left: float, top: float, right: float, bottom: float) -> Outline:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)


def seen(*outlines: Outline) -> DetectedText:
    return DetectedText(outlines=outlines, is_tangled=False)


def bounds(found: DetectedText) -> list[tuple[int, ...]]:
    return sorted(tuple(np.concatenate([one.min(axis=0), one.max(axis=0)]).round().astype(int).tolist()) for one in found.outlines)


def two_strips(axis: int) -> list[Strip]:
    """Of 1,000 pixels each, the second of which begins at 900."""
    return [Strip(page=blank(1000, 1000), origin=(0, 0)), Strip(page=blank(1000, 1000), origin=(900, 0) if axis == 0 else (0, 900))]


@pytest.mark.parametrize("shape", [(2339, 1654), (3508, 2480), (4000, 1400), (10_000, 7000), (50, 900)])
def test_a_page_that_fits_the_detector_is_one_strip(shape: tuple[int, int]) -> None:
    strips = strips_of(blank(*shape), SETTINGS)
    assert [((0, 0), shape)] == [(strip.origin, strip.page.shape[:2]) for strip in strips]


@pytest.mark.parametrize("shape", [(15_444, 910), (910, 15_444), (40_000, 300), (300, 40_000), (4200, 1000)])
def test_strips_of_a_long_page_overlap_and_leave_nothing_out(shape: tuple[int, int]) -> None:
    page = blank(*shape)
    page[::50, ::50] = 0
    strips = strips_of(page, SETTINGS)
    axis = int(np.argmax(shape))
    starts = [strip.origin[1 - axis] for strip in strips]
    lengths = {strip.page.shape[axis] for strip in strips}
    assert 1 == len(lengths), "one size, which the detector knows"
    (length,) = lengths
    assert (0, max(shape)) == (starts[0], starts[-1] + length)
    assert all(before + length - after >= 0.09 * length for before, after in pairwise(starts))


def test_blank_parts_of_a_long_page_are_not_searched() -> None:
    page = blank(40_000, 300)
    page[100:110, 20:280] = 0
    assert [(0, 0)] == [strip.origin for strip in strips_of(page, SETTINGS)]
    assert 1 == len(strips_of(blank(40_000, 300), SETTINGS))


@pytest.mark.parametrize("axis", [0, 1])
def test_text_in_the_middle_of_a_long_page_is_told_where_it_stands_although_its_strip_is_the_only_one(axis: int) -> None:
    page = blank(40_000, 300)
    page[20_000:20_010, 20:280] = 0
    page = page if axis else np.ascontiguousarray(page.transpose(1, 0, 2))
    (strip,) = strips_of(page, SETTINGS)
    assert strip.origin[axis] > 0
    shown = np.argwhere(strip.page[:, :, 0] == 0)[:, ::-1]
    (left, top), (right, bottom) = shown.min(axis=0).tolist(), (shown.max(axis=0) + 1).tolist()
    found = joined([strip], [seen(box(left, top, right, bottom))], SETTINGS)
    assert [(20, 20_000, 280, 20_010) if axis else (20_000, 20, 20_010, 280)] == bounds(found)


def test_a_long_page_of_large_letters_is_one_strip_as_they_are_seen_when_it_is_made_smaller() -> None:
    page = blank(6000, 1500)
    for row in range(60):
        for column in range(20):
            page[100 * row + 20 : 100 * row + 60, 70 * column + 10 : 70 * column + 40] = 0
    assert 1 == len(strips_of(page, SETTINGS))


@pytest.mark.parametrize("axis", [0, 1])
def test_text_that_both_strips_saw_is_told_once(axis: int) -> None:
    first = box(930, 40, 970, 60) if axis == 0 else box(40, 930, 400, 950)
    second = first - np.array([900, 0] if axis == 0 else [0, 900], np.float32) + 1
    assert bounds(seen(first)) == bounds(joined(two_strips(axis), [seen(first), seen(second)], SETTINGS))


def test_text_that_was_cut_is_told_as_the_strip_that_saw_it_whole_did() -> None:
    at_the_end, whole_after = box(40, 985, 400, 1000), box(40, 85, 400, 105)
    whole_before, at_the_start = box(40, 895, 400, 915), box(40, 0, 400, 15)
    found = joined(two_strips(1), [seen(at_the_end, whole_before), seen(whole_after, at_the_start)], SETTINGS)
    assert [(40, 895, 400, 915), (40, 985, 400, 1005)] == bounds(found)


def test_a_line_that_runs_on_over_both_strips_is_one() -> None:
    found = joined(two_strips(0), [seen(box(100, 40, 1000, 60)), seen(box(0, 41, 700, 60))], SETTINGS)
    assert [(100, 40, 1600, 60)] == bounds(found)


def test_neighbouring_lines_within_the_overlap_stay_apart() -> None:
    rows = [box(40, 910 + 22 * row, 400, 928 + 22 * row) for row in range(4)]
    again = [row - np.array([0, 900], np.float32) for row in rows]
    assert bounds(seen(*rows)) == bounds(joined(two_strips(1), [seen(*rows), seen(*again)], SETTINGS))
