"""Segmenters of the repository: stitching, areas, outlines, and the mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import openslide
import pytest
import shapely
import tifffile
from numpy.typing import NDArray
from pyarrow import parquet

from inference_server.errors import ConfigurationError
from inference_server.tasks.slides.outputs import polygons
from tests.support.slides.painted import paint, write_lzw_tiff, write_svs
from tests.support.slides.tile_models import write_segmenter

SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "analysis.schema.json").read_text())
WIDTH, HEIGHT = 900, 700


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Pink with two dark discs, one with a hole, that lie over the borders of tiles."""
    picture = paint(WIDTH, HEIGHT, tissue=None)
    picture[40:640, 40:820] = (225, 150, 200)
    for x, y, radius in ((300, 300, 130), (620, 400, 90)):
        cv2.circle(picture, (x, y), radius, (110, 60, 140), -1)
    cv2.circle(picture, (300, 300), 50, (225, 150, 200), -1)
    return picture


def expected_mask(picture: NDArray[np.uint8], reach: int = 2) -> NDArray[np.uint8]:
    """The same model over the whole picture at once."""
    size = 2 * reach + 1
    padded = np.pad(picture.astype(np.float32) / 255, ((reach, reach), (reach, reach), (0, 0)), constant_values=1.0)
    means = cv2.blur(padded, (size, size))[reach:-reach, reach:-reach]
    logits = [40 * means[..., 1] - 32, np.zeros(means.shape[:2]), 40 * (1.05 - means[..., 0] - means[..., 1])]
    return (np.argmax(logits, axis=0) + 1).astype(np.uint8)


async def run(analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8], **options: Any) -> Any:
    """At the slide's own resolution, from a file without loss."""
    write_segmenter(tmp_path / "models", **options)
    slide = write_lzw_tiff(tmp_path / "slide.tif", picture)
    return await analyses_with(tmp_path / "models").run(slide, analysis="stains", mpp=1.0)


async def test_the_mask_is_that_of_the_whole_slide_at_once(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    found = await run(analyses_with, tmp_path, picture, least_tissue=0.0)
    jsonschema.validate(found.report, SCHEMA)
    mask = tifffile.imread(found.folder / "mask.ome.tiff")
    assert (HEIGHT, WIDTH) == mask.shape
    analysed = mask > 0
    assert np.array_equal(expected_mask(picture)[analysed], mask[analysed])
    # Every tile with tissue was analysed whole.
    assert analysed[60:620, 60:800].all()


async def test_tiles_without_overlap_have_seams_which_shows_that_overlap_does_something(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    found = await run(analyses_with, tmp_path, picture, overlap=0, least_tissue=0.0)
    mask = tifffile.imread(found.folder / "mask.ome.tiff")
    assert not np.array_equal(expected_mask(picture)[mask > 0], mask[mask > 0])


@pytest.mark.parametrize(
    "options", [{}, {"tile_size": 75}, {"tile_size": 16, "overlap": 0}, {"tile_size": 82, "stride": 2, "output_stride": 2}]
)
async def test_the_heat_of_a_cell_is_its_share_of_the_masks_pixels_however_tiles_lie_on_it(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8], options: dict[str, int]
) -> None:
    found = await run(analyses_with, tmp_path, picture, **options)
    mask = tifffile.imread(found.folder / "mask.ome.tiff")
    edge, stride = 8 // options.get("stride", 1), options.get("stride", 1)
    padded = np.pad(mask, [(0, -side % edge) for side in mask.shape])
    dark, seen = ((each.reshape(len(padded) // edge, edge, -1, edge)).sum(axis=(1, 3)) for each in (padded == 3, padded > 0))
    heat = tifffile.imread(found.folder / "heatmap.ome.tiff")
    # What an analysed tile has past the slide's edge counts as seen too.
    inner = np.s_[: HEIGHT // stride // edge, : WIDTH // stride // edge]
    shown = np.isfinite(heat[inner])
    assert shown.sum() > 0.8 * (seen[inner] == edge**2).sum()
    assert (dark[inner] / np.maximum(seen[inner], 1))[shown].astype(np.float32).tolist() == heat[inner][shown].tolist()


async def test_areas_are_those_of_the_masks_pixels(analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    found = await run(analyses_with, tmp_path, picture)
    mask = tifffile.imread(found.folder / "mask.ome.tiff")
    areas = {each["name"]: each["area_mm2"] for each in found.report["measures"]["classes"]}
    for number, name in enumerate(("glass", "pink", "dark"), start=1):
        assert pytest.approx((mask == number).sum() / 1e6, abs=1e-6) == areas[name]
    rows = parquet.read_table(found.folder / "tiles.parquet").to_pydict()
    pixels = np.array(rows["width"]) * np.array(rows["height"])
    assert pytest.approx(areas["dark"], rel=1e-5) == (np.array(rows["share(dark)"]) * pixels).sum() / 1e6


async def test_outlines_are_valid_have_no_seams_and_the_areas_of_the_mask(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    found = await run(analyses_with, tmp_path, picture, least_area_um2=2000.0)
    shapes = [(each["properties"], shapely.geometry.shape(each["geometry"])) for each in found.features]
    assert all(shape.is_valid for _, shape in shapes)
    dark = [(told, shape) for told, shape in shapes if told["classification"]["name"] == "dark"]
    # Two discs, though each lies on many tiles.
    assert [0, 1] == sorted(len(shape.interiors) for _, shape in dark)
    assert "glass" not in {told["classification"]["name"] for told, _ in shapes}
    for told, shape in dark:
        assert pytest.approx(told["measurements"]["Area µm²"]) == shape.area
    mask = tifffile.imread(found.folder / "mask.ome.tiff")
    assert (mask == 3).sum() == sum(shape.area for _, shape in dark)


# Steps of 56, 54, 58 (twice a prime), 59 (a prime), 57 and 17 px.
@pytest.mark.parametrize(
    "cut",
    [
        {},
        {"overlap": 10},
        {"overlap": 6},
        {"tile_size": 67},
        {"tile_size": 118, "overlap": 4, "stride": 2, "output_stride": 2},
        {"tile_size": 25, "overlap": 8},
    ],
    ids=str,
)
async def test_outlines_of_a_large_mask_are_near_it_and_have_no_seams_however_tiles_overlap(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8], cut: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polygons, "MOST_CELLS", 60_000)
    found = await run(analyses_with, tmp_path, picture, **cut)
    measures = found.report["measures"]
    # Of the finest outline that fits.
    least = (900 * 700 / 60_000) ** 0.5
    assert all(least / 1.2 <= side <= least * 1.5 for side in measures["outline_mpp"])
    shapes = [(each["properties"], shapely.geometry.shape(each["geometry"])) for each in found.features]
    assert all(shape.is_valid for _, shape in shapes)
    assert all(pytest.approx(told["measurements"]["Area µm²"]) == shape.area for told, shape in shapes)
    dark = [shape for told, shape in shapes if told["classification"]["name"] == "dark"]
    assert [0, 1] == sorted(len(shape.interiors) for shape in dark)
    for name in ("pink", "dark"):
        area = sum(shape.area for told, shape in shapes if told["classification"]["name"] == name)
        (masked,) = (each["area_mm2"] for each in measures["classes"] if each["name"] == name)
        assert pytest.approx(masked * 1e6, rel=0.02) == area


async def test_coordinates_and_sizes_are_those_of_level_0(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    write_segmenter(tmp_path / "models", least_area_um2=500.0)
    slide = write_svs(tmp_path / "slide.svs", picture, mpp=0.5)
    found = await analyses_with(tmp_path / "models").run(slide, analysis="stains")
    with tifffile.TiffFile(found.folder / "mask.ome.tiff") as file:
        assert (350, 450) == file.series[0].shape
        assert 'PhysicalSizeX="1"' in file.ome_metadata
        assert "0: none; 1: glass; 2: pink; 3: dark" in file.ome_metadata
    dark = [shapely.geometry.shape(each["geometry"]) for each in found.features if each["properties"]["classification"]["name"] == "dark"]
    centres = sorted((shape.centroid.x, shape.centroid.y) for shape in dark)
    assert [pytest.approx((300, 300), abs=3), pytest.approx((620, 400), abs=3)] == centres


@pytest.mark.parametrize("stride", [2, 4])
async def test_an_output_smaller_than_its_tile_is_stitched_too(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8], stride: int
) -> None:
    found = await run(analyses_with, tmp_path, picture, stride=stride, output_stride=stride, least_tissue=0.0)
    mask = tifffile.imread(found.folder / "mask.ome.tiff")
    assert (-(-HEIGHT // stride), -(-WIDTH // stride)) == mask.shape
    assert np.array_equal(expected_mask(picture)[::stride, ::stride][mask > 0], mask[mask > 0])


async def test_an_output_of_another_size_than_told_is_refused(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    with pytest.raises(ConfigurationError, match=r"puts out \[3, 64, 64\] a tile; \[3, 32, 32\] were expected"):
        await run(analyses_with, tmp_path, picture, output_stride=2)


async def test_a_pixel_whose_class_misses_its_threshold_has_none(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    found = await run(analyses_with, tmp_path, picture, thresholds={"glass": 0.999, "pink": 0.9, "dark": 0.999})
    mask, measures = tifffile.imread(found.folder / "mask.ome.tiff"), found.report["measures"]
    assert measures["unclassified_mm2"] > 0
    assert pytest.approx(measures["segmented_mm2"] - measures["unclassified_mm2"]) == (mask > 0).sum() / 1e6


async def test_a_blank_slide_has_an_empty_mask(analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    found = await run(analyses_with, tmp_path, paint(400, 300, tissue=None))
    jsonschema.validate(found.report, SCHEMA)
    assert (0, []) == (int(tifffile.imread(found.folder / "mask.ome.tiff").max()), found.features)


async def test_a_mask_larger_than_one_tile_is_a_pyramid(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference_server.tasks.slides.outputs import ome_tiff

    # So that both ways of making a lower level are taken.
    monkeypatch.setattr(ome_tiff, "_EDGE", 128)
    monkeypatch.setattr(ome_tiff, "_MOST_HELD_PIXELS", 100_000)
    found = await run(analyses_with, tmp_path, picture)
    with tifffile.TiffFile(found.folder / "mask.ome.tiff") as file:
        levels = [level.asarray() for level in file.series[0].levels]
    assert [(700, 900), (350, 450), (175, 225), (88, 113)] == [level.shape for level in levels]
    for number, level in enumerate(levels[1:], start=1):
        assert np.array_equal(levels[0][:: 2**number, :: 2**number], level)
    # A reader that knows nothing of OME.
    with openslide.OpenSlide(found.folder / "mask.ome.tiff") as slide:
        whole = slide.read_region((0, 0), 0, slide.dimensions)
    assert np.array_equal(levels[0], np.asarray(whole)[..., 0])
