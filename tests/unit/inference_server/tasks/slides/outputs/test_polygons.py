"""Outlines of regions of a mask, judged by shapely."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from inference_server.tasks.slides.outputs import polygons
from inference_server.tasks.slides.outputs.polygons import Outline


def shape_of(outline: Outline) -> shapely.Polygon:
    return shapely.Polygon(outline.shell.tolist(), [hole.tolist() for hole in outline.holes])


def outlined(mask: NDArray[np.bool_], least: float = 0) -> list[shapely.Polygon]:
    down, across = (np.arange(side + 1) for side in mask.shape)
    return [shape_of(each) for each in polygons.outlines(mask, across=across, down=down, least=least)]


def drawn(*rows: str) -> NDArray[np.bool_]:
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_a_rectangle_has_four_corners_at_the_edges_of_its_cells() -> None:
    (found,) = outlined(drawn("....", ".##.", ".##.", ".##.", "...."))
    assert {(1.0, 1.0), (3.0, 1.0), (3.0, 4.0), (1.0, 4.0)} == set(found.exterior.coords)
    assert 5 == len(found.exterior.coords)


def test_a_ring_has_a_hole() -> None:
    (found,) = outlined(drawn("####", "#..#", "#..#", "####"))
    assert (12.0, 1) == (found.area, len(found.interiors))


def test_rings_go_round_as_geojson_wants_them() -> None:
    """RFC 7946, 3.1.6: a shell against the clock, holes with it, by x to the right and y upwards."""
    (found,) = outlined(drawn("####", "#..#", "#..#", "####"))
    assert [True, False] == [ring.is_ccw for ring in (found.exterior, *found.interiors)]


def test_cells_that_touch_at_a_corner_are_two_regions() -> None:
    assert [1.0, 1.0] == [each.area for each in outlined(drawn("#.", ".#"))]


@pytest.mark.parametrize(
    "rows",
    [
        # A loop that closes over a corner only; a hole that touches another; a hole that touches the outside.
        (".##", "#.#", "###"),
        ("#####", "#.###", "##.##", "#####"),
        ("####", "#.##", "##..", "####"),
        (".#.", "###", ".#."),
    ],
)
def test_rings_are_valid_where_cells_touch_at_corners(rows: tuple[str, ...]) -> None:
    mask = drawn(*rows)
    found = outlined(mask)
    assert all(each.is_valid for each in found)
    assert mask.sum() == sum(each.area for each in found)


@pytest.mark.parametrize("seed", range(20))
def test_outlines_of_any_mask_are_valid_and_cover_its_cells_exactly(seed: int) -> None:
    random = np.random.default_rng(seed)
    mask = random.random((40, 33)) < random.uniform(0.2, 0.8)
    found = outlined(mask)
    assert all(each.is_valid for each in found)
    whole = shapely.union_all(found)
    rows, columns = np.mgrid[0:40, 0:33] + 0.5
    assert np.array_equal(mask, shapely.contains_xy(whole, columns, rows))
    assert mask.sum() == sum(each.area for each in found)


def test_small_regions_are_left_out() -> None:
    assert [4.0] == [each.area for each in outlined(drawn("##..", "##.#"), least=2)]


def test_cells_of_several_sizes_are_outlined_along_their_edges() -> None:
    (found,) = polygons.outlines(drawn("###", "#.#", "###"), across=np.array([10, 11, 13, 14]), down=np.array([5, 7, 8, 11]), least=0)
    assert 4 * 6 - 2 == found.area == shape_of(found).area
    assert (10, 5, 14, 11) == shape_of(found).bounds


def test_regions_are_left_out_by_their_pixels_and_not_by_their_cells() -> None:
    found = polygons.outlines(drawn("#.#"), across=np.array([0, 1, 2, 5]), down=np.array([0, 1]), least=2)
    assert [3.0] == [each.area for each in found]


def test_a_cell_takes_its_commonest_class_and_the_first_of_equals() -> None:
    labels = np.array([[1, 1, 2, 0, 3], [2, 1, 2, 0, 3]], np.uint8)
    assert [[1, 0, 3], [0, 0, 0], [0, 0, 0]] == polygons.reduced(labels, polygons.lines(6, 3), 3).tolist()
    assert [[1, 2], [0, 0]] == polygons.reduced(labels[:, :3], np.array([0, 2, 5]), 3).tolist()


@pytest.mark.parametrize("edge", [1, 7, 56, 211, 214, 512])
def test_cells_grow_as_little_as_they_must_whatever_the_blocks_edge(edge: int) -> None:
    assert edge == polygons.cells_of(5, 5, edge)
    # A block has 8 cells along each side at most.
    cells = polygons.cells_of(500, 500, edge)
    assert min(edge, 7) <= cells <= 8
    found = polygons.lines(edge, cells, first=3, count=2)
    assert (3 * edge, 4 * edge, 5 * edge) == tuple(found[::cells])
    assert np.ptp(np.diff(found)) <= 1
