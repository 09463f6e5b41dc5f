"""Copies of he_baseline's folder under other names, with manifests of their own."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import jsonschema
import numpy as np
import pytest
from lamina.v1 import slides_pb2, slides_pb2_grpc
from numpy.typing import NDArray

from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import Caller
from inference_server.tasks.slides.values import AnalysisRequest, AnalysisResult, Checkpoint, ClientTile
from tests.support.inference_server.running_application import running_application
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.written_files import contents

SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "analysis.schema.json").read_text())
WIDTH, HEIGHT = 1000, 700
TISSUE = (50, 50, 950, 650)
NUCLEI = scattered(150, within=(70, 70, 930, 630), apart=28)
STRONG = [place for place in NUCLEI if place[0] < 500]


def picture() -> NDArray[np.uint8]:
    """Nuclei that are paler in its right half."""
    pixels = paint(WIDTH, HEIGHT, tissue=TISSUE, nuclei=NUCLEI).astype(np.float64)
    plain = paint(WIDTH, HEIGHT, tissue=TISSUE)
    pixels[:, 500:] = 0.6 * pixels[:, 500:] + 0.4 * plain[:, 500:]
    return np.round(pixels).astype(np.uint8)


PICTURE = picture()
STRICT = {"classes": ["Dark nucleus"], "colors": {"Dark nucleus": [1, 2, 3]}, "response_share": 0.8, "tile_size": 256}


def copy_filter(built: Path, models: Path, name: str, **changes: Any) -> Path:
    """A copy of the folder of he_baseline, with changes of its manifest."""
    folder = models / name
    shutil.copytree(built / "he_baseline", folder)
    path = folder / "slide.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_svs(tmp_path / "slide.svs", PICTURE)


@pytest.fixture
async def stub(models: Path, tmp_path: Path) -> AsyncIterator[Any]:
    """Of a server with he_baseline, a stricter copy, and a copy whose manifest does not fit its graph."""
    repository = tmp_path / "models"
    copy_filter(models, repository, "he_baseline")
    copy_filter(models, repository, "strict", **STRICT)
    copy_filter(models, repository, "wide", halo=54)
    roots = {"read_roots": str(tmp_path), "write_roots": str(tmp_path / "out")}
    async with (
        running_application(repository, tmp_path, **roots) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        yield slides_pb2_grpc.SlideServiceStub(channel)


def features(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads(gzip.decompress((folder / "detections.geojson.gz").read_bytes()))["features"])


async def test_a_copy_is_served_by_its_own_name_class_colour_thresholds_and_tile_size(stub: Any, slide: Path, tmp_path: Path) -> None:
    found = {}
    for name in ("he_baseline", "strict"):
        request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide), analysis=name, output_uri=str(tmp_path / "out" / name))
        result = [event async for event in stub.AnalyzeSlide(request)][-1].result
        assert (name, f"{name}:1") == (result.analysis, result.model)
        report = json.loads(result.report_json)
        jsonschema.validate(report, SCHEMA)
        told = [each["properties"]["classification"] for each in features(tmp_path / "out" / name)]
        assert report["measures"]["nuclear_candidates"] == len(told)
        assert name == report["analysis"] == report["model"]["name"]
        found[name] = (len(told), {(each["name"], *each["color"]) for each in told}, report["grid"]["tile_size"])
    assert (len(NUCLEI), {("Nuclear candidate", 90, 60, 160)}, 512) == found["he_baseline"]
    assert (len(STRONG), {("Dark nucleus", 1, 2, 3)}, 256) == found["strict"]


async def test_a_copy_runs_on_tiles_of_a_client_too(stub: Any) -> None:
    tile = slides_pb2.Tile(id="t", rgb=PICTURE.tobytes(), width=WIDTH, height=HEIGHT)
    for name, expected in (("", NUCLEI), ("strict", STRONG)):
        response = await stub.AnalyzeTiles(slides_pb2.AnalyzeTilesRequest(analysis=name, tiles=[tile], mpp=0.5))
        assert (f"{name or 'he_baseline'}:1", len(expected)) == (response.model, len(response.tiles[0].points))


async def test_a_copy_whose_manifest_does_not_fit_is_refused_with_what_the_graph_has(stub: Any, slide: Path) -> None:
    tile = slides_pb2.Tile(id="t", rgb=PICTURE.tobytes(), width=WIDTH, height=HEIGHT)
    with pytest.raises(grpc.aio.AioRpcError) as of_slide:
        [event async for event in stub.AnalyzeSlide(slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide), analysis="wide"))]
    with pytest.raises(grpc.aio.AioRpcError) as of_tiles:
        await stub.AnalyzeTiles(slides_pb2.AnalyzeTilesRequest(analysis="wide", tiles=[tile], mpp=0.5))
    for refused in (of_slide, of_tiles):
        assert grpc.StatusCode.FAILED_PRECONDITION == refused.value.code()
        assert "wide/slide.json says halo 54; the model's graph has 28. Say that." in str(refused.value.details())


async def test_a_copy_may_run_at_another_resolution_for_smaller_nuclei(
    models: Path, slide: Path, tmp_path: Path, analyses_with: Any
) -> None:
    copy_filter(models, tmp_path / "models", "small", mpp=0.4, scales={"candidates": 1.56, "coarse_candidates": 2.24})
    found = await analyses_with(tmp_path / "models").run(slide, analysis="small", mpp=0.4)
    assert pytest.approx(0.4) == found.report["grid"]["mpp_x"]
    assert len(NUCLEI) == len(found.features)
    assert {1.56, 2.24} >= {each["properties"]["measurements"]["Scale (µm)"] for each in found.features}


@pytest.mark.parametrize("tile_size", [16, 4096])
async def test_tiles_of_all_sizes_that_a_manifest_may_allow_give_the_same(
    models: Path, slide: Path, tmp_path: Path, analyses_with: Any, tile_size: int
) -> None:
    copy_filter(models, tmp_path / "models", "mine", tile_sizes=[16, 4096])
    analyses = analyses_with(tmp_path / "models")
    expected, found = await analyses.run(slide, analysis="mine"), await analyses.run(slide, analysis="mine", tile_size=tile_size)
    assert tile_size == found.report["grid"]["tile_size"]
    assert expected.features == found.features
    assert expected.report["measures"] == found.report["measures"]


async def test_outputs_that_do_not_fit_are_told_where_no_parameter_does(
    models: Path, slide: Path, tmp_path: Path, analyses_with: Any
) -> None:
    copy_filter(models, tmp_path / "models", "wide", halo=54)
    analyses = analyses_with(tmp_path / "models")
    with pytest.raises(
        ConfigurationError, match=r"wide puts out finest_candidates of the shape .* by halo 54 and cell 16 of its slide.json"
    ):
        await analyses.run(slide, analysis="wide")
    tile = ClientTile(id="t", rgb=PICTURE.tobytes(), width=WIDTH, height=HEIGHT)
    with pytest.raises(ConfigurationError, match="wide puts out finest_candidates of the shape"):
        await analyses.analyzer.analyze_tiles("wide", [tile], 0.5, Caller())


async def test_a_repository_of_a_build_without_manifests_gives_the_same_files(
    models: Path, slide: Path, tmp_path: Path, analyses: Any, analyses_with: Any
) -> None:
    (copy_filter(models, tmp_path / "models", "he_baseline") / "slide.json").unlink()
    expected, found = await analyses.run(slide), await analyses_with(tmp_path / "models").run(slide)
    assert contents(expected.folder) == contents(found.folder)


@pytest.mark.parametrize(("changes", "resumes"), [({}, True), ({"response_share": 0.8}, False)])
async def test_what_was_saved_is_gone_on_with_by_the_same_manifest_alone(
    models: Path, slide: Path, tmp_path: Path, analyses_with: Any, changes: dict[str, Any], resumes: bool
) -> None:
    path = copy_filter(models, tmp_path / "models", "mine") / "slide.json"
    analyzer = analyses_with(tmp_path / "models").analyzer

    async def run(out: str, **resumed: Any) -> tuple[AnalysisResult, list[str]]:
        request = AnalysisRequest(
            slide_uri=str(slide), analysis="mine", output_uri=str(tmp_path / "out" / out), checkpoints=True, **resumed
        )
        events = [event async for event in analyzer.analyze(request, Caller())]
        return events[-1], [event.uri for event in events if isinstance(event, Checkpoint)]

    _, saved = await run("first")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    result, _ = await run("second", resume_uris=saved)
    assert saved
    assert resumes == (result.tiles_resumed > 0) == (result.resume_refused == "")
