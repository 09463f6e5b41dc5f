"""he_baseline over whole slides, from file to artifacts."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import geojson
import jsonschema
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from inference_server.errors import AccessDenied, InvalidInput, InvalidSlide, NotFound, Unavailable
from inference_server.scheduler.port import Caller
from inference_server.tasks.slides import analysis, runs, survey
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Chunk, ClientTile, Progress
from tests.support.patience import until
from tests.support.slides.he_fields import Look, paint_field
from tests.support.slides.mirax import write_mrxs
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.written_files import contents, sent

WIDTH, HEIGHT = 1300, 900
TISSUE = (150, 130, 1150, 770)
NUCLEI = scattered(260, within=(170, 150, 1130, 750), apart=22)
SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "analysis.schema.json").read_text())


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    return paint(WIDTH, HEIGHT, tissue=TISSUE, nuclei=NUCLEI, noise=3)


@pytest.fixture
def slide(tmp_path: Path, picture: NDArray[np.uint8]) -> Path:
    return write_svs(tmp_path / "slide.svs", picture)


async def test_planted_nuclei_are_found_once_each_where_they_are(analyses: Any, slide: Path) -> None:
    points = (await analyses.run(slide)).points
    distances = np.hypot(*(points[:, None, :] - np.array(NUCLEI)[None, :, :]).transpose(2, 0, 1))
    assert len(NUCLEI) == len(points)
    assert 1.5 > distances.min(axis=0).max()
    assert 1.5 > distances.min(axis=1).max()


@pytest.mark.parametrize("tile_size", [64, 256, 496, 1024])
async def test_results_do_not_depend_on_the_tile_size(analyses: Any, slide: Path, tile_size: int) -> None:
    expected, actual = await analyses.run(slide), await analyses.run(slide, tile_size=tile_size)
    assert expected.features == actual.features
    assert expected.report["measures"] == actual.report["measures"]
    assert expected.report["tissue"] == actual.report["tissue"]
    for name in ("heatmap.png", "overlay.png", "detections.geojson.gz"):
        assert (expected.folder / name).read_bytes() == (actual.folder / name).read_bytes()


async def test_dense_noise_gives_the_same_candidates_for_tiles_of_256_and_512(analyses: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(3).integers(60, 230, (90, 130, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    slide = write_svs(tmp_path / "noise.svs", noise, quality=60)
    expected, actual = await analyses.run(slide, tile_size=512), await analyses.run(slide, tile_size=256)
    assert 300 < len(expected.features)
    assert expected.features == actual.features


async def test_tissue_area_and_density_are_those_of_the_painting(analyses: Any, slide: Path) -> None:
    report = (await analyses.run(slide)).report
    painted = (TISSUE[2] - TISSUE[0]) * (TISSUE[3] - TISSUE[1]) * 0.5**2 / 1e6
    assert pytest.approx(painted, rel=0.03) == report["tissue"]["area_mm2"]
    assert len(NUCLEI) == report["measures"]["nuclear_candidates"]
    assert pytest.approx(len(NUCLEI) / painted, rel=0.03) == report["measures"]["nuclear_candidates_per_mm2"]
    assert pytest.approx(0.35, abs=0.03) == report["measures"]["mean_eosin_od"]


@pytest.mark.parametrize("scale", [2, 3])
async def test_a_finer_scan_gives_the_same_findings(analyses: Any, tmp_path: Path, scale: int, picture: NDArray[np.uint8]) -> None:
    fine = write_svs(tmp_path / "fine.svs", picture.repeat(scale, axis=0).repeat(scale, axis=1), mpp=0.5 / scale, quality=98)
    found = await analyses.run(fine)
    assert pytest.approx(len(NUCLEI), abs=3) == len(found.points)
    distances = np.hypot(*(found.points[:, None, :] / scale - np.array(NUCLEI)[None, :, :]).transpose(2, 0, 1))
    assert 2.0 > distances.min(axis=0).max()


async def test_an_odd_resolution_is_resampled_the_same_for_all_tile_sizes(analyses: Any, slide: Path) -> None:
    expected, actual = await analyses.run(slide, mpp=0.37, tile_size=512), await analyses.run(slide, mpp=0.37, tile_size=128)
    assert pytest.approx(0.5) == expected.report["grid"]["mpp_x"]
    assert expected.features == actual.features
    assert expected.report["measures"] == actual.report["measures"]


async def test_a_blank_slide_has_an_empty_result(analyses: Any, tmp_path: Path) -> None:
    found = await analyses.run(write_svs(tmp_path / "blank.svs", paint(900, 700, tissue=None, noise=3)))
    assert (0.0, 0, []) == (found.report["tissue"]["area_mm2"], found.report["measures"]["nuclear_candidates"], found.features)
    assert found.report["measures"]["nuclear_candidates_per_mm2"] is None
    jsonschema.validate(found.report, SCHEMA)


async def test_a_slide_that_is_all_tissue_is_all_tissue(analyses: Any, tmp_path: Path) -> None:
    found = await analyses.run(write_svs(tmp_path / "full.svs", paint(900, 700, tissue=(0, 0, 900, 700), noise=3)))
    assert pytest.approx(900 * 700 * 0.25 / 1e6) == found.report["tissue"]["area_mm2"]


def half_blurred(sigma: float, *, contrast: float = 1.0) -> NDArray[np.uint8]:
    """Painted H&E at 0.5 µm/px, its right half blurred by σ µm before the scanner's noise came to it, and all of it paler."""
    painted = paint_field(Look(blur=0.3, noise=0, jpeg=0), 3, edge=1024, mpp=0.5).pixels.astype(np.float32)
    painted[:, 512:] = cv2.GaussianBlur(painted, (0, 0), sigma / 0.5)[:, 512:]
    painted = 245 * (painted / 245) ** contrast + np.random.default_rng(5).normal(0, 1.5, painted.shape)
    return np.clip(np.round(painted), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("sigma", "contrast"), [(1.0, 1.0), (1.0, 0.4), (2.0, 1.0), (5.0, 1.0)])
async def test_blurred_tissue_is_told_by_its_share(analyses: Any, tmp_path: Path, sigma: float, contrast: float) -> None:
    found = await analyses.run(write_svs(tmp_path / "half.svs", half_blurred(sigma, contrast=contrast)))
    assert pytest.approx(0.5, abs=0.04) == found.report["measures"]["blurred_tissue_share"]


async def test_pale_tissue_in_focus_is_not_blurred(analyses: Any, tmp_path: Path) -> None:
    pale = paint_field(Look(haematoxylin=0.3, eosin=0.35, noise=1), 3, edge=1024, mpp=0.5).pixels
    assert 0.03 > (await analyses.run(write_svs(tmp_path / "pale.svs", pale))).report["measures"]["blurred_tissue_share"]


async def test_blurred_tissue_is_the_same_however_the_slide_is_cut(analyses: Any, tmp_path: Path) -> None:
    slide = write_svs(tmp_path / "half.svs", half_blurred(0.6))
    expected, actual = await analyses.run(slide, tile_size=512), await analyses.run(slide, tile_size=64)
    assert 0.05 < expected.report["measures"]["blurred_tissue_share"] < 0.6
    assert expected.report["measures"] == actual.report["measures"]


async def test_the_report_fits_its_schema_and_says_that_nothing_was_learned(analyses: Any, slide: Path) -> None:
    found = await analyses.run(slide, request_id="run-7")
    jsonschema.validate(found.report, SCHEMA)
    assert (False, "run-7") == (found.report["model"]["learned_weights"], found.report["request_id"])
    assert found.result.report_json == (found.folder / "analysis.json").read_text()


async def test_the_same_slide_gives_the_same_bytes(analyses: Any, slide: Path) -> None:
    first, second = await analyses.run(slide), await analyses.run(slide)
    assert contents(first.folder) == contents(second.folder)


async def test_artifacts_are_told_with_size_and_hash(analyses: Any, slide: Path) -> None:
    found = await analyses.run(slide)
    names = ["analysis.json", "heatmap.png", "heatmap.ome.tiff", "overlay.png", "detections.geojson.gz", "tiles.parquet"]
    assert names == [each.name for each in found.result.artifacts]
    for each in found.result.artifacts:
        content = Path(each.uri).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (each.size_bytes, each.sha256)


async def test_pictures_show_the_slide(analyses: Any, slide: Path) -> None:
    found = await analyses.run(slide)
    with Image.open(found.folder / "overlay.png") as overlay, Image.open(found.folder / "heatmap.png") as heatmap:
        assert (WIDTH, HEIGHT) == overlay.size
        assert (0, 255) == heatmap.getchannel("A").getextrema()


async def test_features_are_what_qupath_imports(analyses: Any, slide: Path) -> None:
    feature = (await analyses.run(slide)).features[0]
    assert ("Feature", "Point", "detection") == (feature["type"], feature["geometry"]["type"], feature["properties"]["objectType"])
    assert "Nuclear candidate" == feature["properties"]["classification"]["name"]


async def test_features_are_valid_geojson_by_a_reader_of_it(analyses: Any, slide: Path) -> None:
    found = geojson.loads(gzip.decompress(((await analyses.run(slide)).folder / "detections.geojson.gz").read_bytes()))
    assert found.is_valid, found.errors()
    assert (len(NUCLEI), {geojson.Point}) == (len(found.features), {type(each.geometry) for each in found.features})


async def test_without_an_output_the_artifacts_are_streamed_before_the_result(analyses: Any, slide: Path) -> None:
    written = await analyses.run(slide)
    events = [event async for event in analyses.analyzer.analyze(AnalysisRequest(slide_uri=str(slide)), Caller())]
    chunks = [event for event in events if isinstance(event, Chunk)]
    assert isinstance(events[0], Progress)
    assert isinstance(events[-1], AnalysisResult)
    assert 256 * 1024 >= max(len(chunk.data) for chunk in chunks)
    for artifact in events[-1].artifacts:
        pieces = [chunk for chunk in chunks if chunk.name == artifact.name]
        assert [sum(len(each.data) for each in pieces[:index]) for index in range(len(pieces))] == [each.offset for each in pieces]
        whole = b"".join(each.data for each in pieces)
        assert ("", artifact.sha256) == (artifact.uri, hashlib.sha256(whole).hexdigest())
    assert contents(written.folder) == sent(events)


async def test_progress_names_stages_and_counts_tiles(analyses: Any, slide: Path) -> None:
    events = [event async for event in analyses.analyzer.analyze(AnalysisRequest(slide_uri=str(slide), tile_size=64), Caller())]
    progress = [event for event in events if isinstance(event, Progress)]
    assert ["opening", "tissue", "tiles", "writing"] == list(dict.fromkeys(each.stage for each in progress))
    last = [each for each in progress if each.stage == "tiles"][-1]
    assert last.tiles_total == last.tiles_done == events[-1].tiles_analyzed
    assert 0.0 == last.seconds_left


async def test_progress_is_repeated_while_nothing_else_is_told(analyses: Any, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = 0

    async def slow_scan(*arguments: Any) -> Any:
        await until(lambda: told >= 3)
        return await scan(*arguments)

    scan = survey.scan_cells
    monkeypatch.setattr(runs, "scan_cells", slow_scan)
    monkeypatch.setattr(analysis, "_SILENCE_SECONDS", 0.1)
    event: Any = None
    async for event in analyses.analyzer.analyze(AnalysisRequest(slide_uri=str(slide)), Caller()):
        told += isinstance(event, Progress) and event.stage == "tissue"

    assert isinstance(event, AnalysisResult)


async def test_damaged_tiles_are_left_out_counted_and_listed(analyses: Any, tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    found = await analyses.run(write_svs(tmp_path / "damaged.svs", picture, tile=64, spoil=(100, -(-WIDTH // 64) - 1)))
    assert (2, 2) == (found.result.tiles_skipped, found.report["tiles"]["unreadable"])
    row, column = divmod(100, -(-WIDTH // 64))
    expected = {"level": 0, "column": column, "row": row, "x": column * 64, "y": row * 64, "width": 64, "height": 64}
    assert expected in found.report["unreadable"]
    # That at the edge ends where the slide does.
    assert WIDTH == max(each["x"] + each["width"] for each in found.report["unreadable"])


async def test_a_slide_without_resolution_asks_for_it(analyses: Any, tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    slide = write_svs(tmp_path / "slide.svs", picture, mpp=None)
    with pytest.raises(InvalidSlide, match=r"does not tell its resolution.*Pass mpp in the request"):
        await analyses.run(slide)
    assert ("request", 0.5) == ((found := (await analyses.run(slide, mpp=0.5)).report["slide"])["mpp_source"], found["mpp_x"])


@pytest.mark.parametrize("mpp", [0.0, -1.0, 500.0, float("nan")])
async def test_an_absurd_resolution_in_the_request_is_refused(analyses: Any, slide: Path, mpp: float) -> None:
    with pytest.raises(InvalidInput, match="expected micrometres per pixel"):
        await analyses.run(slide, mpp=mpp)


async def test_a_slide_too_coarse_for_nuclei_is_refused(analyses: Any, slide: Path) -> None:
    with pytest.raises(InvalidSlide, match=r"4 µm/px at its finest; he_baseline works at 0.5 and needs 2 or finer"):
        await analyses.run(slide, mpp=4.0)


@pytest.mark.parametrize("tile_size", [-16, 8, 100, 4096])
async def test_a_tile_size_that_cannot_be_is_refused(analyses: Any, slide: Path, tile_size: int) -> None:
    with pytest.raises(InvalidInput, match="multiples of 16 from 64 to 2048"):
        await analyses.run(slide, tile_size=tile_size)


async def test_an_output_outside_of_the_roots_is_denied_before_any_work(analyses: Any, slide: Path, tmp_path: Path) -> None:
    request = AnalysisRequest(slide_uri=str(slide), output_uri=str(tmp_path / "elsewhere"))
    with pytest.raises(AccessDenied, match="INFERENCE_WRITE_ROOTS"):
        await anext(analyses.analyzer.analyze(request, Caller()))


async def test_an_unknown_analysis_tells_which_there_are(analyses: Any, slide: Path) -> None:
    with pytest.raises(NotFound, match=r"no analysis is called nosuch; there are: he_baseline"):
        await analyses.run(slide, analysis="nosuch")


async def test_leaving_the_stream_ends_the_work(analyses: Any, slide: Path) -> None:
    calls = 0
    infer = analyses.analyzer._inference.infer

    async def counted(request: Any) -> Any:
        nonlocal calls
        calls += 1
        return await infer(request)

    analyses.analyzer._inference.infer = counted
    stream = analyses.analyzer.analyze(AnalysisRequest(slide_uri=str(slide), tile_size=64), Caller())
    async for event in stream:
        if event.stage == "tiles":
            break
    await stream.aclose()
    assert 4 >= calls


async def test_coordinates_begin_at_the_bounds_of_the_scan(analyses: Any, tmp_path: Path) -> None:
    # The first of four rows and columns of pictures was not scanned.
    bounds, size = np.array((256, 192)), (1024, 768)
    nuclei = np.array(scattered(60, within=(300, 240, 1000, 740), apart=30))
    slide = write_mrxs(tmp_path / "slide.mrxs", paint(*size, tissue=(256, 192, *size), nuclei=nuclei.tolist()), first=1)
    found = await analyses.run(slide)
    assert bounds.tolist() == [found.report["slide"][name] for name in ("bounds_x", "bounds_y")]
    distances = np.hypot(*(found.points[:, None] + bounds - nuclei).T)
    assert len(nuclei) == len(found.points)
    assert (distances.min(axis=1) < 4).all()


async def test_a_grey_image_without_tiles_is_read_too(analyses: Any, tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, picture, photometric="rgb", resolution=(20000, 20000), resolutionunit="CENTIMETER", rowsperstrip=64)
    found = await analyses.run(path)
    assert ("image", len(NUCLEI)) == (found.report["slide"]["reader"], len(found.points))


async def test_a_server_without_its_model_is_unavailable_until_it_is_built(tmp_path: Path, slide: Path, analyses_with: Any) -> None:
    analyses = analyses_with(tmp_path / "models")
    with pytest.raises(Unavailable, match=r"lacks its built-in model he_baseline.*`inference-server models build`"):
        await analyses.run(slide)
    tile = ClientTile(id="a", rgb=bytes(64 * 64 * 3), width=64, height=64)
    with pytest.raises(Unavailable, match="lacks its built-in model he_baseline"):
        await analyses.analyzer.analyze_tiles("", [tile], 0.5, Caller())


async def test_a_place_that_can_never_be_written_to_is_refused_before_the_slide_is_read(analyses: Any, slide: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report").write_bytes(b"a file")
    request = AnalysisRequest(slide_uri=str(slide), output_uri=str(tmp_path / "out" / "report"))
    events = analyses.analyzer.analyze(request, Caller())
    with pytest.raises(InvalidInput, match=r"analysis.json can be no file \(Not a directory\)"):
        await anext(events)
