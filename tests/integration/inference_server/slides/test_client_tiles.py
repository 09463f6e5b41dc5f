"""he_baseline on pixels that a client holds."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.optimize import linear_sum_assignment

from inference_server.errors import InvalidInput
from inference_server.scheduler.port import Caller
from inference_server.tasks.slides.values import ClientTile
from tests.support.slides.he_fields import Look, paint_field
from tests.support.slides.painted import paint, scattered
from tests.support.slides.tile_models import write_classifier

WIDTH, HEIGHT = 300, 200
NUCLEI = scattered(25, within=(15, 15, 285, 185), apart=25)
PICTURE = paint(WIDTH, HEIGHT, tissue=(0, 0, WIDTH, HEIGHT), nuclei=NUCLEI)


def raw(pixels: Any, name: str = "a", **wrong: Any) -> ClientTile:
    return ClientTile(**({"id": name, "rgb": pixels.tobytes(), "width": pixels.shape[1], "height": pixels.shape[0]} | wrong))


def encoded(pixels: Any, kind: str) -> ClientTile:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return ClientTile(id=kind, encoded=buffer.getvalue())


def huge() -> ClientTile:
    buffer = io.BytesIO()
    Image.new("1", (5000, 4000)).save(buffer, "PNG")
    return ClientTile(id="huge", encoded=buffer.getvalue())


@pytest.mark.parametrize("mpp", [0.5, 0.25, 0.4])
async def test_nuclei_are_found_in_pixels_of_the_tile(analyses: Any, mpp: float) -> None:
    times = round(0.5 / mpp * 10) / 10
    picture = paint(
        int(WIDTH * times),
        int(HEIGHT * times),
        tissue=(0, 0, 2000, 2000),
        nuclei=[(x * times, y * times) for x, y in NUCLEI],
        radius=5 * times,
    )
    found, model = await analyses.analyzer.analyze_tiles("", [raw(picture)], mpp, Caller())
    points = np.array([(point.x, point.y) for point in found[0].points])
    distances = np.hypot(*(points[:, None, :] - np.array(NUCLEI)[None, :, :] * times).transpose(2, 0, 1))
    assert ("he_baseline:1", len(NUCLEI)) == (model, len(points))
    assert 2.0 * times > distances.min(axis=0).max()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
async def test_a_tiles_places_are_those_of_its_stored_pixels_whatever_its_orientation(analyses: Any, kind: str) -> None:
    found = []
    for orientation in (1, 6):
        buffer, exif = io.BytesIO(), Image.Exif()
        exif[274] = orientation
        Image.fromarray(PICTURE).save(buffer, kind, exif=exif)
        tile = ClientTile(id="a", encoded=buffer.getvalue())
        found.append((await analyses.analyzer.analyze_tiles("", [tile], 0.5, Caller()))[0][0].points)
    assert len(NUCLEI) == len(found[0])
    assert found[0] == found[1]


async def test_scores_are_counts_densities_and_optical_densities(analyses: Any) -> None:
    scores = (await analyses.analyzer.analyze_tiles("he_baseline", [raw(PICTURE)], 0.5, Caller()))[0][0].scores
    assert len(NUCLEI) == scores["nuclear_candidates"]
    assert pytest.approx(len(NUCLEI) / (WIDTH * HEIGHT * 0.25e-6)) == scores["nuclear_candidates_per_mm2"]
    assert pytest.approx(0.35, abs=0.03) == scores["mean_eosin_od"]


async def test_png_gives_what_raw_pixels_give(analyses: Any) -> None:
    png, pixels = [
        (await analyses.analyzer.analyze_tiles("", [tile], 0.5, Caller()))[0][0] for tile in (encoded(PICTURE, "PNG"), raw(PICTURE))
    ]
    assert (png.points, png.scores) == (pixels.points, pixels.scores)


# Fields as laboratories and scanners make them; benchmarks/nuclei.py has more of them, with their bars.
LOOKS = {
    "usual": Look(),
    "reddish and pale": Look(stain="reddish", haematoxylin=0.5, eosin=0.6),
    "bluish and dark": Look(stain="bluish", haematoxylin=1.6, eosin=1.3),
    "large nuclei": Look(diameter=9, nuclei=70),
    "between the scales, and close together": Look(diameter=8, nuclei=110),
    "few nuclei": Look(nuclei=20, noise=6),
}


def f1(found: Any, expected: Any, within: float) -> float:
    """Of points matched one to one."""
    apart = np.hypot(*(found[:, None] - expected[None]).transpose(2, 0, 1))
    rows, columns = linear_sum_assignment(np.where(apart <= within, apart, 1e6))
    return float(2 * np.count_nonzero(apart[rows, columns] <= within) / (len(found) + len(expected)))


@pytest.mark.parametrize("look", LOOKS)
async def test_nuclei_of_a_small_field_are_found_whatever_its_stain(analyses: Any, look: str) -> None:
    field = paint_field(LOOKS[look], 5)
    found, _ = await analyses.analyzer.analyze_tiles("", [raw(field.pixels)], 0.25, Caller())
    points = np.array([(point.x, point.y) for point in found[0].points])
    assert f1(points, field.centres, 4 / 0.25) >= 0.85


async def test_nuclei_that_the_edge_of_a_field_cuts_are_found_once(analyses: Any) -> None:
    cut = [(0, 60), (60, 0), (WIDTH, 80), (90, HEIGHT), (2, 140), (150, 3), (WIDTH - 2, 150), (210, HEIGHT - 3)]
    picture = paint(WIDTH, HEIGHT, tissue=(0, 0, WIDTH, HEIGHT), nuclei=cut)
    found, _ = await analyses.analyzer.analyze_tiles("", [raw(picture)], 0.5, Caller())
    points = np.array([(point.x, point.y) for point in found[0].points])
    assert len(cut) == len(points)
    # A nucleus and its mirror image may answer as one, in the middle: on the edge.
    assert 3.5 > np.hypot(*(points[:, None] - np.array(cut)[None]).transpose(2, 0, 1)).min(axis=0).max()


async def test_what_is_chosen_for_a_tile_does_not_depend_on_its_neighbours_in_the_request(analyses: Any) -> None:
    pale, dark = (paint_field(LOOKS[look], 3).pixels for look in ("reddish and pale", "bluish and dark"))
    alone = [(await analyses.analyzer.analyze_tiles("", [raw(each)], 0.25, Caller()))[0][0].points for each in (pale, dark)]
    together, _ = await analyses.analyzer.analyze_tiles("", [raw(pale), raw(dark)], 0.25, Caller())
    assert alone == [each.points for each in together]


async def test_more_tiles_than_a_batch_are_answered_in_order(analyses: Any) -> None:
    tiles = [raw(PICTURE if number % 3 else np.full_like(PICTURE, 255), str(number)) for number in range(40)]
    found, _ = await analyses.analyzer.analyze_tiles("", tiles, 0.5, Caller())
    assert [str(number) for number in range(40)] == [each.id for each in found]
    assert [len(NUCLEI) if number % 3 else 0 for number in range(40)] == [len(each.points) for each in found]


@pytest.mark.parametrize(
    ("tiles", "mpp", "message"),
    [
        ([], 0.5, "no tiles were sent"),
        ([raw(PICTURE)], 0.0, "needs the tiles' own"),
        ([raw(PICTURE, width=299)], 0.5, "for 299 × 200 px; expected width × height × 3"),
        ([raw(PICTURE), raw(PICTURE[:100])], 0.5, "must have the same size"),
        (
            [ClientTile(id="x", encoded=b"no picture")],
            0.5,
            r"tile x cannot be decoded.*Send it whole as one of these, or its pixels as rgb",
        ),
        ([encoded(PICTURE, "WEBP")], 0.5, "tile WEBP cannot be decoded.*neither JPEG nor PNG nor TIFF"),
        ([huge()], 0.5, r"tile huge has 5000 × 4000 px; at most 16,777,216 px a tile are accepted\. Send it in parts"),
        ([ClientTile(id="x")], 0.5, r"has 0 bytes of RGB and is told to be 0 × 0 px; expected a width and a height from 1 px on"),
        ([raw(PICTURE, width=-300)], 0.5, r"is told to be -300 × 200 px; expected a width and a height from 1 px on"),
    ],
)
async def test_tiles_that_are_wrong_are_told(analyses: Any, tiles: list[ClientTile], mpp: float, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await analyses.analyzer.analyze_tiles("", tiles, mpp, Caller())


async def test_many_tiles_are_made_ready_for_a_classifier_a_call_at_a_time(analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    write_classifier(tmp_path / "models", tile_size=256)
    pixels = [np.full((256, 256, 3), (230, green, 200), np.uint8) for green in (120, 240) for _ in range(120)]
    tiles = [raw(each, str(number)) for number, each in enumerate(pixels)]
    analyzer = analyses_with(tmp_path / "models").analyzer
    await analyzer.analyze_tiles("pinkness", tiles[:2], 1.0, Caller())
    tracemalloc.start()
    try:
        found, model = await analyzer.analyze_tiles("pinkness", tiles, 1.0, Caller())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert "pinkness:1" == model
    assert [str(number) for number in range(240)] == [each.id for each in found]
    assert [True] * 120 + [False] * 120 == [each.scores["tissue"] > 0.5 for each in found]
    # As float32 all of them take four times as much as they do.
    assert most < 3 * sum(each.nbytes for each in pixels)
