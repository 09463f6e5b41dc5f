"""Which way up a page is."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.detection.detector import clockwise
from inference_server.tasks.documents.detection.orientation import Trial, Turn, is_better, is_sure, lies_on_side, telling
from inference_server.tasks.documents.values import Quad

HEIGHT, WIDTH = 400, 300


def quad(left: float, top: float, width: float, height: float) -> Quad:
    return np.array([[left, top], [left + width, top], [left + width, top + height], [left, top + height]], np.float32)


def trials(*confidences: float, characters: int = 12) -> list[Trial]:
    return [Trial(characters=characters, confidence=confidence) for confidence in confidences]


def test_a_page_of_level_lines_does_not_lie_on_its_side() -> None:
    assert not lies_on_side([quad(20, 30 * row, 200, 20) for row in range(6)])


def test_a_page_of_upright_lines_lies_on_its_side() -> None:
    assert lies_on_side([quad(30 * row, 20, 20, 200) for row in range(6)] + [quad(200, 380, 30, 10)])


def askew(quad_: Quad, degrees: float) -> Quad:
    radians = np.deg2rad(degrees)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    return np.asarray(quad_ @ turn, np.float32)


@pytest.mark.parametrize("degrees", [-40, -12, -7, -1, 0, 1, 7, 12, 40])
def test_the_corners_of_a_line_begin_at_its_top_left_at_any_slope(degrees: float) -> None:
    level, upright = askew(quad(0, 0, 400, 20), degrees), askew(quad(0, 0, 20, 400), degrees)
    for start in range(4):
        assert np.array_equal(level, clockwise(np.roll(level, start, axis=0)))
        assert np.array_equal(upright, clockwise(np.roll(upright, start, axis=0)))
    assert lies_on_side([upright] * 5)
    assert not lies_on_side([level] * 5)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_few_upright_lines_turn_no_page_but_one_that_holds_nothing_else(count: int) -> None:
    upright = [quad(30 * row, 20, 20, 200) for row in range(count)]
    assert not lies_on_side([*upright, quad(200, 300, 30, 20)])
    assert lies_on_side(upright) is (count > 0)


def test_a_stamp_along_the_edge_turns_no_page() -> None:
    assert not lies_on_side([quad(280, 20, 15, 350)] * 3 + [quad(20, 30 * row, 200, 20) for row in range(12)])


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_turn_takes_pixels_and_quads_alike_and_back(quarters: int) -> None:
    page = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    page[50:61, 40:141] = 0
    turn = Turn(quarters=quarters, height=HEIGHT, width=WIDTH)
    there = turn.outline(quad(40, 50, 100, 10))
    rows, columns = np.nonzero(turn.page(page)[:, :, 0] == 0)
    assert [columns.min(), rows.min(), columns.max(), rows.max()] == [*there.min(axis=0), *there.max(axis=0)]
    assert there[0].tolist() == there.min(axis=0).tolist()
    back = turn.back(there)
    assert sorted(quad(40, 50, 100, 10).tolist()) == sorted(back.tolist())
    # Of a page that came head down, the text begins at the bottom right.
    assert [[40, 50], [40, 60], [140, 60], [140, 50]][quarters] == back[0].tolist()


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_the_outline_of_a_line_that_bends_begins_at_its_upright_left(quarters: int) -> None:
    turn = Turn(quarters=quarters, height=HEIGHT, width=WIDTH)
    x = np.linspace(40, 240, 9)
    y = 100 - 30 * np.sin(np.pi * (x - 40) / 200)
    upright = np.concatenate([np.stack([x, y], axis=1), np.stack([x, y + 20], axis=1)[::-1]]).astype(np.float32)
    as_it_came = turn.back(upright)
    # Found on a page that came turned, it may begin at either end.
    for found in (as_it_came, np.roll(as_it_came, 9, axis=0)) if quarters else (upright,):
        assert np.allclose(upright, turn.outline(found), atol=1e-3)


def test_lines_of_middle_length_tell_and_cells_do_not() -> None:
    quads = [quad(0, 0, 30, 20), quad(0, 40, 900, 20), quad(0, 80, 150, 20), quad(0, 120, 90, 20), quad(0, 200, 20, 90)]
    assert [2, 3, 1] == telling(quads, 6, 10.0)
    assert [2] == telling(quads, 1, 10.0)


def test_lines_that_are_read_well_are_the_right_way_up() -> None:
    assert is_sure(trials(0.99, 0.95, 0.75))
    assert not is_sure(trials(0.75, 0.8, 0.7))
    assert not is_sure([])


@pytest.mark.parametrize(
    ("other", "these", "expected"),
    [
        (trials(0.99, 0.98, 0.97), trials(0.7, 0.75, 0.7), True),
        # Handwriting is read badly both ways.
        (trials(0.75, 0.72, 0.7), trials(0.7, 0.75, 0.7), False),
        # One line that is better does not turn the page.
        (trials(0.99, 0.6, 0.6), trials(0.3, 0.65, 0.65), False),
        # 69 is 69 head down, too.
        (trials(0.99, characters=2), trials(0.5, characters=2), False),
        ([], [], False),
    ],
)
def test_a_page_is_turned_only_where_the_other_way_is_plainly_better(other: list[Trial], these: list[Trial], expected: bool) -> None:
    assert expected == is_better(other, these)
