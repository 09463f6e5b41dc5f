"""Which maxima are nuclear candidates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.slides.kinds.maxima import Maxima
from inference_server.tasks.slides.kinds.nuclei import EOSIN, HAEMATOXYLIN, LEAK_STEP, MOST_LEAK, Nuclei, eosin_leak
from inference_server.tasks.slides.kinds.nuclei import choose as choose_by

RANDOM = np.random.default_rng(5)


def maxima(*groups: tuple[int, float, tuple[int, int, int, int]]) -> Maxima:
    """Groups of so many maxima with responses about a mean, within (left, top, right, bottom)."""
    parts = []
    for count, mean, (left, top, right, bottom) in groups:
        places = RANDOM.integers((left, top), (right, bottom), (count, 2))
        parts.append((places, mean * RANDOM.uniform(0.8, 1.2, count)))
    places, response = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    order = np.lexsort((places[:, 0], places[:, 1]))
    x, y = places[order].T.astype(np.int32)
    return Maxima(x=x, y=y, response=response[order].astype(np.float32))


def nothing() -> Maxima:
    return Maxima(x=np.empty(0, np.int32), y=np.empty(0, np.int32), response=np.empty(0, np.float32))


def choose(fine: Maxima, coarse: Maxima, *, width: int, height: int) -> Nuclei:
    """By the numbers of he_baseline's manifest."""
    return choose_by(fine, coarse, width=width, height=height, least=0.045, share=0.22)


WHOLE = (0, 0, 1024, 1024)


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
@pytest.mark.parametrize(("nuclei", "texture"), [(900, 100), (500, 500), (60, 3000)])
def test_nuclei_are_told_from_texture_whatever_the_stain_and_their_number(strength: float, nuclei: int, texture: int) -> None:
    found = choose(maxima((nuclei, strength, WHOLE), (texture, 0.1 * strength, WHOLE)), nothing(), width=1024, height=1024)
    assert nuclei == len(found.coarse)


def test_noise_alone_is_no_nuclei() -> None:
    found = choose(maxima((3000, 0.03, WHOLE)), maxima((800, 0.03, WHOLE)), width=1024, height=1024)
    assert (0, 0.045, 0.045) == (len(found.coarse), found.least_response, found.least_coarse_response)


def test_fewer_are_found_the_more_they_must_answer() -> None:
    fine = maxima((500, 0.5, WHOLE), (500, 0.2, WHOLE))
    counts = [len(choose_by(fine, nothing(), width=1024, height=1024, least=0.045, share=share).coarse) for share in (0.1, 0.6, 1.0)]
    assert [1000, 500] == counts[:2]
    assert 0 < counts[2] < 500
    assert 0 == len(choose_by(fine, nothing(), width=1024, height=1024, least=0.7, share=0.1).coarse)


def test_nothing_gives_nothing() -> None:
    assert 0 == len(choose(nothing(), nothing(), width=10, height=10).found.x)


def test_each_neighbourhood_takes_the_scale_that_answers_more_strongly() -> None:
    left, right = (0, 0, 400, 1024), (620, 0, 1024, 1024)
    fine = maxima((300, 0.5, left), (300, 0.3, right))
    x, y = (each.ravel().astype(np.int32) for each in np.meshgrid(np.arange(0, 1024, 40), np.arange(0, 1024, 40)))
    beside = (x < 400) | (x > 620)
    x, y = x[beside], y[beside]
    coarse = Maxima(x=x, y=y, response=np.where(x < 400, 0.3, 0.5).astype(np.float32))
    found = choose(fine, coarse, width=1024, height=1024)
    assert not found.coarse[found.found.x < 400].any()
    assert found.coarse[found.found.x > 620].all()
    assert [300, int(np.count_nonzero(x > 620))] == [int(np.count_nonzero(each)) for each in (~found.coarse, found.coarse)]


def test_a_nucleus_that_both_scales_find_where_they_meet_counts_once() -> None:
    fine = maxima((400, 0.5, (0, 2, 512, 1024)), (400, 0.2, (512, 2, 1024, 1024)))
    coarse = Maxima(x=fine.x + 2, y=fine.y - 2, response=np.where(fine.x < 512, 0.2, 0.5).astype(np.float32))
    found = choose(fine, coarse, width=1024, height=1024)
    small, large = found.found.where(~found.coarse), found.found.where(found.coarse)
    assert min(len(small.x), len(large.x)) > 100
    apart = np.maximum(np.abs(small.x[:, None] - large.x), np.abs(small.y[:, None] - large.y))
    assert 6 < apart.min()


def merged(*, fine: float, coarse: float, beside: float) -> tuple[Maxima, Maxima]:
    """Nuclei that both scales find, and as many whose neighbour, `beside` grid pixels to the right, the fine one alone finds."""
    x, y = (each.ravel().astype(np.int32) for each in np.meshgrid(np.arange(40, 1000, 80), np.arange(40, 1000, 80)))
    both = np.concatenate([x, x + round(beside)]), np.concatenate([y, y])
    order = np.lexsort(both)
    found = Maxima(x=both[0][order], y=both[1][order], response=np.full(len(order), fine, np.float32))
    return found, Maxima(x=x, y=y, response=np.full(len(x), coarse, np.float32))


def test_where_sizes_are_mixed_the_fine_scale_adds_what_the_coarse_one_merged() -> None:
    found = choose(*merged(fine=0.5, coarse=0.55, beside=14), width=1024, height=1024)
    assert [144, 144] == [int(np.count_nonzero(each)) for each in (~found.coarse, found.coarse)]
    places = list(zip(found.found.y.tolist(), found.found.x.tolist(), strict=True))
    assert sorted(places) == places


@pytest.mark.parametrize(
    ("fine", "coarse", "beside"),
    [(0.5, 0.55, 9), (0.5, 0.65, 14)],
    ids=["the rim of the same nucleus", "large nuclei, of which the fine scale finds parts"],
)
def test_parts_of_a_large_nucleus_are_not_added(fine: float, coarse: float, beside: float) -> None:
    found = choose(*merged(fine=fine, coarse=coarse, beside=beside), width=1024, height=1024)
    assert (144, True) == (len(found.coarse), bool(found.coarse.all()))


def test_texture_beside_a_large_nucleus_is_not_added() -> None:
    fine, coarse = merged(fine=0.5, coarse=0.55, beside=14)
    weak = Maxima(x=fine.x, y=fine.y, response=np.where(np.isin(fine.x, coarse.x), 0.5, 0.13).astype(np.float32))
    assert 144 == len(choose(weak, coarse, width=1024, height=1024).coarse)


def placed(*places: tuple[float, float, float]) -> Maxima:
    """Maxima at (x, y) of a response, each."""
    x, y, response = np.array(sorted(places, key=lambda place: (place[1], place[0]))).T
    return Maxima(x=x.astype(np.int32), y=y.astype(np.int32), response=response.astype(np.float32))


LATTICE = [(x, y) for y in range(40, 1000, 80) for x in range(40, 1000, 80)]


@pytest.mark.parametrize(
    ("beside", "coarse", "found"),
    [(6, 0.56, [0, 144]), (6, 0.5, [288, 0]), (9, 0.56, [288, 0])],
    ids=["two halves of one that is long", "two that touch", "two that lie apart"],
)
def test_fine_candidates_are_parts_of_one_that_the_coarse_scale_answers_more_strongly(beside: int, coarse: float, found: list[int]) -> None:
    # Between strong small ones, so that the neighbourhood's scale is the fine one.
    small = [(x + 40, y + 40, 0.9) for x, y in LATTICE]
    halves = [(x + side, y, 0.5) for x, y in LATTICE for side in (-beside, beside)]
    wholes = placed(*[(x, y, coarse) for x, y in LATTICE], *[(x + 40, y + 40, 0.3) for x, y in LATTICE])
    nuclei = choose(placed(*small, *halves), wholes, width=1024, height=1024)
    of_halves = nuclei.found.response < 0.8
    assert found == [int(np.count_nonzero(of_halves & each)) for each in (~nuclei.coarse, nuclei.coarse)]


@pytest.mark.parametrize(("ratio", "expected"), [(1.1, 288), (1.4, 144)])
def test_the_rim_of_a_nucleus_larger_than_both_scales_counts_once_in_its_middle(ratio: float, expected: int) -> None:
    rims = placed(*[(x + side, y, 0.5 - side * 1e-4) for x, y in LATTICE for side in (-7, 7)])
    fine = Maxima(x=rims.x, y=rims.y, response=(rims.response / ratio).astype(np.float32))
    found = choose(fine, rims, width=1024, height=1024)
    assert expected == len(found.coarse)
    if expected == len(LATTICE):
        assert sorted(LATTICE) == sorted(zip(found.found.x.tolist(), found.found.y.tolist(), strict=True))


def test_pale_nuclei_are_found_below_what_noise_answers_elsewhere() -> None:
    pale = choose(maxima((500, 0.1, WHOLE), (200, 0.035, WHOLE)), nothing(), width=1024, height=1024)
    assert (700, True) == (len(pale.coarse), pale.least_response < 0.028)


def test_specks_are_left_where_a_valley_parts_them_from_nuclei() -> None:
    specks, nuclei = (1200, 0.12, WHOLE), (500, 0.5, WHOLE)
    found = choose(maxima(specks, nuclei), nothing(), width=1024, height=1024)
    assert 500 == len(found.coarse)


def test_without_a_valley_the_share_tells() -> None:
    rising = maxima((100, 0.12, WHOLE), (200, 0.16, WHOLE), (300, 0.22, WHOLE), (500, 0.5, WHOLE))
    found = choose(rising, nothing(), width=1024, height=1024)
    values = rising.response.astype(float)
    assert pytest.approx(0.22 * float((values**3).sum() / (values**2).sum())) == found.least_response


def test_candidates_come_in_reading_order() -> None:
    found = choose(maxima((500, 0.5, (0, 0, 512, 1024))), maxima((500, 0.5, (512, 0, 1024, 1024))), width=1024, height=1024).found
    places = list(zip(found.y.tolist(), found.x.tolist(), strict=True))
    assert sorted(places) == places


def test_candidates_are_the_same_however_many_are_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both scales find some, the coarse one far more strongly on one side, so that maxima are put together there."""
    fine = maxima((700, 0.5, (0, 0, 512, 1024)), (300, 0.2, (512, 0, 1024, 1024)))
    coarse = maxima((400, 0.5, (0, 0, 512, 1024)), (700, 0.6, (512, 0, 1024, 1024)))
    at_once = choose(fine, coarse, width=1024, height=1024)
    monkeypatch.setattr("inference_server.tasks.slides.kinds.maxima._PORTION", 7)
    by_few = choose(fine, coarse, width=1024, height=1024)
    assert {True, False} == set(at_once.coarse.tolist())
    for name in ("x", "y", "response"):
        assert getattr(at_once.found, name).tolist() == getattr(by_few.found, name).tolist()
    assert at_once.coarse.tolist() == by_few.coarse.tolist()


def colours(haematoxylin: NDArray[np.float64], eosin: NDArray[np.float64], vectors: tuple[NDArray[np.float64], ...]) -> NDArray[np.uint8]:
    density = haematoxylin[..., None] * vectors[0] + eosin[..., None] * vectors[1]
    return np.round(255 * 10.0**-density).astype(np.uint8)


@pytest.mark.parametrize("leak", [-0.25, 0.0, 0.25])
def test_the_leak_of_eosin_is_read_from_the_slides_colours(leak: float) -> None:
    vectors = np.array(HAEMATOXYLIN), np.array(EOSIN) + leak * np.array(HAEMATOXYLIN)
    haematoxylin, eosin = RANDOM.gamma(1.0, 0.2, 20_000), RANDOM.uniform(0.2, 0.6, 20_000)
    found = eosin_leak(colours(haematoxylin, eosin, vectors))
    assert pytest.approx(leak, abs=0.04) == found
    assert 0.0 == found % LEAK_STEP


@pytest.mark.parametrize("pixels", [np.full((50, 50, 3), 245, np.uint8), np.zeros((0, 3), np.uint8), np.full((9, 9, 3), 90, np.uint8)])
def test_without_stain_nothing_is_said_to_leak(pixels: NDArray[np.uint8]) -> None:
    assert 0.0 == eosin_leak(pixels)


def test_a_leak_stays_within_its_bounds() -> None:
    assert MOST_LEAK == eosin_leak(colours(np.full(500, 0.9), np.full(500, 0.1), (np.array(HAEMATOXYLIN), np.array(EOSIN))))
