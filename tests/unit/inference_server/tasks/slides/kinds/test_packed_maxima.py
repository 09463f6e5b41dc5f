"""Maxima that wait for the last tile of a slide are found again where they were."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.slides.kinds.packed_maxima import PackedMaxima, among_pooled, in_order
from inference_server.tasks.slides.tiling import Tile

RANDOM = np.random.default_rng(6)


def tiles_of(size: int) -> list[Tile]:
    return [Tile(x=column * size, y=row * size, size=size, tissue=1.0) for row, column in ((3, 40), (3, 41), (4, 7))]


def found_in(size: int, count: int) -> tuple[PackedMaxima, NDArray[np.int64], NDArray[np.float32]]:
    """Maxima of three tiles, of which the second has none; and their (x, y) on the slide, and responses."""
    tiles, side = tiles_of(size), size // 2
    count = min(count, side**2)
    some = [np.sort(RANDOM.choice(side**2, number, replace=False)) for number in (count, 0, count // 2)]
    place, response = np.concatenate(some).astype(np.int32), RANDOM.random(sum(map(len, some))).astype(np.float32)
    packed = PackedMaxima.of(tiles, counts=np.array([len(each) for each in some], np.int32), place=place, response=response)
    corners = np.repeat([(tile.x, tile.y) for tile in tiles], [len(each) for each in some], axis=0)
    return packed, corners + 2 * np.stack([place % side, place // side], axis=1), response


# A tile of 512 px has as many places as two bytes count; smaller ones fewer, larger ones more.
@pytest.mark.parametrize("size", [16, 496, 512, 528, 1024, 2048])
def test_places_and_responses_are_what_they_were(size: int) -> None:
    packed, places, response = found_in(size, 3000)
    unpacked = packed.unpacked()
    assert places.tolist() == np.stack([unpacked.x, unpacked.y], axis=1).tolist()
    assert response.tolist() == unpacked.response.tolist()
    kept = RANDOM.random(len(places)) < 0.3
    some = packed.where(kept).unpacked()
    assert places[kept].tolist() == np.stack([some.x, some.y], axis=1).tolist()
    assert response[kept].tolist() == some.response.tolist()


def test_those_of_all_tiles_come_in_reading_order() -> None:
    many = [found_in(64, 200)[0] for _ in range(1)] + [found_in(128, 500)[0]]
    found = in_order(many)
    assert sorted(zip(found.y.tolist(), found.x.tolist(), strict=True)) == list(zip(found.y.tolist(), found.x.tolist(), strict=True))
    assert sum(len(each.place) for each in many) == len(found.x)
    assert 0 == len(in_order([]).x)


@pytest.mark.parametrize(("counts", "place"), [([2, 0, 0], [1]), ([1, 0, 1], [1, 32 * 32 * 4096]), ([1, 0, 0], [-1])])
def test_what_cannot_be_of_these_tiles_is_refused(counts: list[int], place: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected|negative"):
        PackedMaxima.of(tiles_of(64), counts=np.array(counts, np.int32), place=np.array(place, np.int32), response=np.zeros(len(place)))


@pytest.mark.parametrize(("pooled", "columns"), [(2, 64), (4, 32), (8, 16)])
def test_a_scale_on_means_of_more_pixels_has_its_maxima_where_theirs_begin(pooled: int, columns: int) -> None:
    row, column = np.array([0, 3, 15]), np.array([5, 0, 15])
    place = among_pooled(row * columns + column, columns=columns, edge=128)
    assert (row * pooled).tolist() == (2 * (place // 64)).tolist()
    assert (column * pooled).tolist() == (2 * (place % 64)).tolist()
