"""What the detector is given, and quads out of what it answers."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from inference_server.tasks.documents.detection.detector import DetectionSettings, detected_text, detector_input

SETTINGS = DetectionSettings()


def likelihood_of(rectangles: list[tuple[tuple[float, float], tuple[float, float], float]], side: int = 768) -> np.ndarray:
    likelihood = np.zeros((side, side), np.float32)
    for rectangle in rectangles:
        cv2.fillPoly(likelihood, [cv2.boxPoints(rectangle).astype(np.int32)], 0.9)
    return likelihood


@pytest.mark.parametrize(("height", "width"), [(2339, 1654), (1000, 800), (60, 900), (5000, 700), (1, 1)])
def test_sides_are_multiples_of_the_step_and_bounded(height: int, width: int) -> None:
    tensor = detector_input(np.zeros((height, width, 3), np.uint8), SETTINGS).tensor
    assert (1, 3, np.float32) == (*tensor.shape[:2], tensor.dtype)
    assert [0, 0] == [side % SETTINGS.side_step for side in tensor.shape[2:]]
    assert max(tensor.shape[2:]) <= SETTINGS.most_long_side


def test_pages_of_nearly_one_size_have_one_shape() -> None:
    shapes = {detector_input(np.zeros((1400 + extra, 1000 + extra, 3), np.uint8), SETTINGS).tensor.shape for extra in range(0, 8, 2)}
    assert 1 == len(shapes)


def page_of_letters(height: int, count: int = 300) -> np.ndarray:
    page = np.full((2000, 1500, 3), 255, np.uint8)
    for index in range(count):
        left, top = 20 + 50 * (index % 28), 20 + 100 * (index // 28)
        page[top : top + height, left : left + max(2, height // 2)] = 0
    return page


@pytest.mark.parametrize(
    ("height", "short_side"),
    # Letters that are high enough at 736 pixels, at a size between, and at none that is allowed.
    [(40, 736), (12, 1000), (6, 1440)],
)
def test_a_page_is_scaled_down_as_far_as_its_letters_allow(height: int, short_side: int) -> None:
    for page in (page_of_letters(height), 255 - page_of_letters(height)):
        assert 1500 / short_side == pytest.approx(detector_input(page, SETTINGS).scale[0], rel=0.12)


@pytest.mark.parametrize(
    ("height", "enlargement"),
    # Letters that are high enough as they are, between, and so small that they need a shorter side of 736 pixels.
    [(24, 1.0), (10, 1.2), (6, 736 / 500)],
)
def test_a_small_page_is_enlarged_no_further_than_its_letters_need(height: int, enlargement: float) -> None:
    page = page_of_letters(height)[:700, :500]
    assert 1 / enlargement == pytest.approx(detector_input(page, SETTINGS).scale[0], rel=0.1)


def test_a_page_with_few_letters_keeps_its_size() -> None:
    assert (1500 / 1440,) * 2 == pytest.approx(detector_input(page_of_letters(40, count=10), SETTINGS).scale, rel=0.01)


@pytest.mark.parametrize(("left", "top"), [(40, 30), (900, 1500), (400, 800)])
def test_of_a_page_with_blank_margins_what_is_written_is_taken_and_its_places_are_those_of_the_page(left: int, top: int) -> None:
    page = np.full((2000, 1500, 3), 255, np.uint8)
    page[top : top + 200, left : left + 300] = page_of_letters(40)[20:220, 20:320]
    source = detector_input(page, DetectionSettings(least_short_side=1000))
    assert max(source.tensor.shape[2:]) <= 512
    rows, columns = np.nonzero(source.tensor[0, 0] < 0)
    x, y = (np.array([columns.min(), rows.min()]) * source.scale + source.origin).tolist()
    assert (left, top) == pytest.approx((x, y), abs=3)


def test_quads_of_a_cut_page_are_in_pixels_of_the_page() -> None:
    page = np.full((768, 1500, 3), 255, np.uint8)
    page[300:340, 1200:1300] = 0
    source = detector_input(page, SETTINGS)
    height, width = source.extent
    assert (0, 1500) != (source.origin[0], width)
    x, y = 1250 - source.origin[0], 320 - source.origin[1]
    (quad,) = detected_text(likelihood_of([((x, y), (60, 16), 0)])[:height, :width], source, SETTINGS).outlines
    assert (1250, 320) == pytest.approx(tuple(quad.mean(axis=0)), abs=2)


def test_small_print_counts_beside_large_letters() -> None:
    page = page_of_letters(40)
    page[1000:] = page_of_letters(12)[20:1020]
    assert 900 < detector_input(page, SETTINGS).extent[1]


def test_pixels_are_given_from_minus_one_to_one_in_the_order_blue_green_red() -> None:
    page = np.zeros((768, 768, 3), np.uint8)
    page[:, :, 0] = 255
    tensor = detector_input(page, SETTINGS).tensor
    assert [-1.0, -1.0, 1.0] == tensor[0, :, 100, 100].tolist()


def test_a_core_is_grown_to_the_whole_line() -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    (quad,) = detected_text(likelihood_of([((300, 200), (200, 20), 0)]), source, SETTINGS).outlines
    # Area times 1.6 divided by the perimeter is 14.5 pixels on each side.
    assert np.allclose([[185, 175], [415, 175], [415, 225], [185, 225]], quad, atol=3)


def test_a_small_core_is_grown_by_what_lies_within_its_blurred_edge() -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    (quad,) = detected_text(likelihood_of([((300, 200), (200, 5), 0)]), source, SETTINGS).outlines
    # As it is drawn it has 6 pixels: 5 without the edge, grown by 3.9 on each side.
    assert 12.8 == pytest.approx(quad[2][1] - quad[1][1], abs=0.6)
    # Without its specks, a page's cores have no such edge: 6 pixels, grown by 4.7.
    (whole,) = detected_text(likelihood_of([((300, 200), (200, 5), 0)]), replace(source, is_cleaned=True), SETTINGS).outlines
    assert 15.3 == pytest.approx(whole[2][1] - whole[1][1], abs=0.6)


def test_quads_are_in_pixels_of_the_page() -> None:
    source = detector_input(np.zeros((1536 * 2, 1536 * 2, 3), np.uint8), DetectionSettings(most_short_side=768))
    (quad,) = detected_text(likelihood_of([((300, 200), (200, 20), 0)]), source, SETTINGS).outlines
    assert np.allclose([[740, 700], [1660, 700], [1660, 900], [740, 900]], quad, atol=12)


def test_tilted_text_gets_a_tilted_quad_that_begins_at_its_top_left() -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    (quad,) = detected_text(likelihood_of([((384, 384), (300, 20), 10)]), source, SETTINGS).outlines
    slope = np.degrees(np.arctan2(*(quad[1] - quad[0])[::-1]))
    assert 10 == pytest.approx(slope, abs=0.7)
    assert quad[0][0] < quad[1][0]
    assert quad[0][1] < quad[3][1]


def blurred_core(size: tuple[int, int], inside: float) -> np.ndarray:
    """A core of which the outermost pixels are half as likely, as those of a small letter are."""
    likelihood = np.zeros((768, 768), np.float32)
    height, width = size
    likelihood[200 : 200 + height, 300 : 300 + width] = 0.35
    likelihood[201 : 199 + height, 301 : 299 + width] = inside
    return likelihood


@pytest.mark.parametrize(("size", "inside", "count"), [((8, 5), 0.6, 1), ((6, 6), 0.55, 1), ((8, 5), 0.38, 0), ((6, 40), 0.45, 0)])
def test_the_core_of_a_lone_letter_is_judged_by_what_lies_within_its_edge(size: tuple[int, int], inside: float, count: int) -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    found = detected_text(blurred_core(size, inside), source, SETTINGS).outlines
    assert count == len(found)
    for quad in found:
        assert (299 + size[1] / 2, 199 + size[0] / 2) == pytest.approx(tuple(quad.mean(axis=0)), abs=1)


def test_specks_and_faint_cores_are_no_text() -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    faint = likelihood_of([((300, 200), (200, 20), 0)]) * 0.45
    faint[500:502, 500:501] = 1
    assert () == detected_text(faint, source, SETTINGS).outlines


def bent_core(likelihood: np.ndarray, top: float, rise: float, left: int = 100, right: int = 600, height: int = 14) -> None:
    """Draw a core from left to right that lies `rise` pixels higher in its middle."""
    x = np.arange(left, right + 1)
    y = top - rise * np.sin(np.pi * (x - left) / (right - left))
    edges = [np.stack([x, y], axis=1), np.stack([x, y + height], axis=1)[::-1]]
    cv2.fillPoly(likelihood, [np.concatenate(edges).round().astype(np.int32)], 0.9)


@pytest.mark.parametrize("rise", [20, 60, -40])
def test_the_outline_of_a_core_that_bends_follows_it(rise: int) -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    likelihood = np.zeros((768, 768), np.float32)
    bent_core(likelihood, 300, rise)
    (outline,) = detected_text(likelihood, source, SETTINGS).outlines
    upper, lower = outline[: len(outline) // 2], outline[: len(outline) // 2 - 1 : -1]
    x = upper[1:-1, 0]
    core = 307 - rise * np.sin(np.pi * (x - 100) / 500)
    assert np.abs((upper + lower)[1:-1, 1] / 2 - core).max() < 2
    # The core has 16 pixels, as it is drawn, and grows by 11.1 on each side.
    assert 38.3 == pytest.approx((lower - upper)[:, 1].mean(), abs=2)
    assert upper[0, 0] < 95
    assert upper[-1, 0] > 605


def test_a_core_that_hardly_bends_keeps_its_quad() -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    likelihood = np.zeros((768, 768), np.float32)
    bent_core(likelihood, 300, 2)
    assert [4] == [len(outline) for outline in detected_text(likelihood, source, SETTINGS).outlines]


def test_bent_lines_that_hang_together_are_told() -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    likelihood = np.zeros((768, 768), np.float32)
    for number in range(10):
        bent_core(likelihood, 120 + 60 * number, 30)
    assert not detected_text(likelihood, source, SETTINGS).is_tangled
    for number in (2, 6):
        # The end of one line runs into the next.
        cv2.line(likelihood, (560, 130 + 60 * number), (480, 170 + 60 * number), 0.9, 14)
    assert detected_text(likelihood, source, SETTINGS).is_tangled


def test_bent_lines_within_a_page_of_level_ones_do_not_change_these() -> None:
    source = detector_input(np.zeros((768, 768, 3), np.uint8), SETTINGS)
    level = likelihood_of([((300, 200 + 40 * row), (200, 12), 0) for row in range(5)])
    both = level.copy()
    bent_core(both, 600, 40)
    before, after = (detected_text(likelihood, source, SETTINGS).outlines for likelihood in (level, both))
    assert sorted(quad.tobytes() for quad in before) == sorted(outline.tobytes() for outline in after if len(outline) == 4)
