"""Which maxima are nuclear candidates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.slides.kinds.maxima import Maxima, joined, strongest
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


SIGMAS = (2.7, 4.0, 5.6, 7.8)


def choose(*by_scale: Maxima, width: int = 1024, height: int = 1024, least: float = 0.045, share: float = 0.28) -> Nuclei:
    """By the numbers of he_baseline's manifest; of the scales that are not given, none."""
    every = (*by_scale, *[nothing()] * (len(SIGMAS) - len(by_scale)))
    return choose_by(every, SIGMAS, width=width, height=height, least=least, share=share)


def placed(*places: tuple[float, float, float]) -> Maxima:
    """Maxima at (x, y) of a response, each."""
    x, y, response = np.array(sorted(places, key=lambda place: (place[1], place[0]))).T
    return Maxima(x=x.astype(np.int32), y=y.astype(np.int32), response=response.astype(np.float32))


def mixed(nuclei: int, strength: float, texture: int, other: float) -> Maxima:
    """So many of the one response and of the other, in places of a lattice."""
    every = [(x, y) for y in range(10, 1020, 16) for x in range(10, 1020, 16)]
    order = np.random.default_rng(3).permutation(len(every))[: nuclei + texture]
    varied = RANDOM.uniform(0.8, 1.2, len(order)) * np.where(np.arange(len(order)) < nuclei, strength, other)
    return placed(*[(*every[place], response) for place, response in zip(order.tolist(), varied.tolist(), strict=True)])


WHOLE = (0, 0, 1024, 1024)


@pytest.mark.parametrize("strength", [0.2, 0.5, 1.0])
@pytest.mark.parametrize(("nuclei", "texture"), [(900, 100), (500, 500), (60, 3000)])
def test_nuclei_are_told_from_texture_whatever_the_stain_and_their_number(strength: float, nuclei: int, texture: int) -> None:
    assert nuclei == len(choose(nothing(), mixed(nuclei, strength, texture, 0.1 * strength)).scale)


def test_noise_alone_is_no_nuclei() -> None:
    found = choose(maxima((3000, 0.03, WHOLE)), maxima((3000, 0.03, WHOLE)), maxima((800, 0.03, WHOLE)))
    assert (0, 0.045) == (len(found.scale), found.least_response)


def test_fewer_are_found_the_more_they_must_answer() -> None:
    every = mixed(500, 0.5, 500, 0.2)
    counts = [len(choose(nothing(), every, share=share).scale) for share in (0.1, 0.6, 1.0)]
    assert [1000, 500] == counts[:2]
    assert 0 < counts[2] < 500
    assert 0 == len(choose(nothing(), every, least=0.7, share=0.1).scale)


def test_nothing_gives_nothing() -> None:
    assert 0 == len(choose(width=10, height=10).found.x)


def test_of_maxima_within_one_nucleus_the_scale_that_answers_most_strongly_is_taken() -> None:
    places = [(x, y) for y in range(40, 1000, 80) for x in range(40, 1000, 80)]
    by_scale = [placed(*[(x + number, y, 0.5 if (x + y) // 80 % 4 == number else 0.25) for x, y in places]) for number in range(4)]
    found = choose(*by_scale)
    taken = dict(zip(zip(found.found.x.tolist(), found.found.y.tolist(), strict=True), found.scale.tolist(), strict=True))
    assert {(x + (x + y) // 80 % 4, y): (x + y) // 80 % 4 for x, y in places} == taken


@pytest.mark.parametrize(
    ("scale", "apart", "expected"), [(0, 5, 1), (0, 8, 2), (1, 8, 1), (1, 11, 2), (2, 11, 1), (2, 14, 2), (3, 16, 1), (3, 19, 2)]
)
def test_maxima_so_near_as_the_scale_is_large_are_one_nucleus(scale: int, apart: int, expected: int) -> None:
    """At 3.1, 4.5, 6.3 and 8.8 µm from one another, along any direction."""
    for x, y in ((apart, 0), (0, apart), (round(0.6 * apart), round(0.8 * apart))):
        two = placed((500, 500, 0.5), (500 + x, 500 + y, 0.45))
        assert expected == len(choose(*[nothing()] * scale, two).scale)


def test_what_lies_beside_a_maximum_that_gives_way_stays() -> None:
    three = placed((500, 500, 0.6), (508, 500, 0.5), (516, 500, 0.4))
    assert [500, 516] == choose(nothing(), three).found.x.tolist()


def test_two_that_touch_are_not_taken_for_one_that_lies_between_them() -> None:
    two, between = placed((500, 500, 0.5), (511, 500, 0.5)), placed((505, 500, 0.4))
    assert [500, 511] == choose(nothing(), two, nothing(), between).found.x.tolist()


@pytest.mark.parametrize(
    ("around", "expected"), [((0.5, 0.5), 1), ((0.3, 0.5), 2)], ids=["beside nuclei of its size", "beside larger ones"]
)
def test_among_nuclei_of_a_size_another_is_taken_for_one_of_that_size(around: tuple[float, float], expected: int) -> None:
    """One that the finer scale answers a little more strongly."""
    places = [(x, y) for y in range(40, 1000, 80) for x in range(40, 1000, 80)]
    finer, coarser = (placed((500, 500, here), *[(x, y, there) for x, y in places]) for here, there in zip((0.5, 0.4), around, strict=True))
    found = choose(nothing(), finer, coarser)
    assert [expected] == found.scale[(found.found.x == 500) & (found.found.y == 500)].tolist()


def test_of_equal_answers_the_finer_scale_and_the_first_stay_whatever_the_order_of_scales() -> None:
    twins = placed((500, 500, 0.5), (503, 500, 0.5))
    assert [500] == choose(twins).found.x.tolist()


def test_pale_nuclei_are_found_below_what_noise_answers_elsewhere() -> None:
    pale = choose(nothing(), mixed(500, 0.1, 200, 0.038))
    assert (700, True) == (len(pale.scale), pale.least_response < 0.03)


def test_specks_are_left_where_a_valley_parts_them_from_nuclei() -> None:
    assert 500 == len(choose(nothing(), mixed(500, 0.5, 1200, 0.105)).scale)


def test_without_a_valley_the_share_tells() -> None:
    rising = maxima((100, 0.12, WHOLE), (200, 0.16, WHOLE), (300, 0.22, WHOLE), (500, 0.5, WHOLE))
    values = rising.response.astype(float)
    assert pytest.approx(0.28 * float((values**3).sum() / (values**2).sum())) == choose(nothing(), rising).least_response


def test_candidates_come_in_reading_order() -> None:
    found = choose(
        maxima((500, 0.5, (0, 0, 512, 1024))), maxima((500, 0.5, (300, 0, 1024, 1024))), maxima((500, 0.5, (512, 0, 1024, 1024)))
    )
    places = list(zip(found.found.y.tolist(), found.found.x.tolist(), strict=True))
    assert sorted(places) == places
    assert {0, 1, 2} == set(found.scale.tolist())


def test_candidates_are_the_same_however_many_are_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    by_scale = [maxima((count, 0.5, WHOLE)) for count in (900, 700, 400, 200)]
    at_once = choose(*by_scale)
    monkeypatch.setattr("inference_server.tasks.slides.kinds.maxima._PORTION", 7)
    by_few = choose(*by_scale)
    for name in ("x", "y", "response"):
        assert getattr(at_once.found, name).tolist() == getattr(by_few.found, name).tolist()
    assert at_once.scale.tolist() == by_few.scale.tolist()


@pytest.mark.parametrize(("scale", "answer", "expected"), [(0, 0.2, False), (0, 0.3, True), (1, 0.2, True)])
def test_a_scale_finer_than_usual_must_answer_more_for_texture_answers_it(scale: int, answer: float, expected: bool) -> None:
    """One maximum far from many of 0.5 OD: the least is 0.14 OD, and at 1.35 µm 0.21 of its score, which is 0.25 OD."""
    by_scale = [nothing(), mixed(900, 0.5, 0, 0)]
    alone = placed((3900, 3900, answer))
    by_scale[scale] = joined(by_scale[scale], alone)
    found = choose(*by_scale, width=4096, height=4096).found
    assert expected is bool((found.x == 3900).any())


def test_a_long_row_of_ever_greater_maxima_is_decided_as_any_other() -> None:
    """Each is near the next, so that each waits for the one after it."""
    count = 1001
    row = Maxima(
        x=np.arange(count, dtype=np.int32) * 4, y=np.zeros(count, np.int32), response=np.linspace(0.1, 1, count).astype(np.float32)
    )
    (kept,) = strongest([row], [row.response], [6.0])
    assert list(range(0, count, 2)) == np.flatnonzero(kept).tolist()


def test_no_two_candidates_are_one_nucleus_and_none_is_missing() -> None:
    """Against the rule itself, applied to one maximum after another."""
    by_scale = [maxima((count, 0.5, (0, 0, 300, 300))) for count in (300, 200, 150, 100)]
    kept = strongest(by_scale, [each.response for each in by_scale], [6.0, 9.0, 13.0, 18.0])
    every = [
        (-float(each.response[i]), n, i, int(each.x[i]), int(each.y[i])) for n, each in enumerate(by_scale) for i in range(len(each.x))
    ]
    taken: list[tuple[float, int, int, int, int]] = []
    for one in sorted(every):
        if all(np.hypot(one[3] - x, one[4] - y) >= (6.0, 9.0, 13.0, 18.0)[max(one[1], n)] for _, n, _, x, y in taken):
            taken.append(one)
    assert sorted((n, i) for _, n, i, _, _ in taken) == [(n, i) for n, those in enumerate(kept) for i in np.flatnonzero(those).tolist()]


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
