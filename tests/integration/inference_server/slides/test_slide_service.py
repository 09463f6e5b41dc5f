"""SlideService through a real gRPC server on loopback."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from lamina.v1 import slides_pb2, slides_pb2_grpc

from inference_server.service.slides import SlideServicer
from tests.support.slides.painted import paint, scattered, write_svs

TISSUE = (100, 80, 700, 520)
NUCLEI = scattered(80, within=(120, 100, 680, 500), apart=25)
PICTURE = paint(800, 600, tissue=TISSUE, nuclei=NUCLEI)


@pytest.fixture
async def stub(analyses: Any) -> AsyncIterator[slides_pb2_grpc.SlideServiceAsyncStub]:
    server = grpc.aio.server()
    slides_pb2_grpc.add_SlideServiceServicer_to_server(SlideServicer(analyses.analyzer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield slides_pb2_grpc.SlideServiceStub(channel)
    await server.stop(None)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return write_svs(tmp_path / "slide.svs", PICTURE)


async def test_slide_info_tells_the_pyramid(stub: Any, slide: Path) -> None:
    info = (await stub.GetSlideInfo(slides_pb2.GetSlideInfoRequest(slide_uri=str(slide)))).info
    assert ("aperio", "tiff", 800, 600, 0.5, 20.0) == (info.vendor, info.reader, info.width, info.height, info.mpp_x, info.objective_power)
    assert [(800, 600, 1.0, 240, 240)] == [(lv.width, lv.height, lv.downsample, lv.tile_width, lv.tile_height) for lv in info.levels]


async def test_slide_info_leaves_an_unknown_resolution_unset(stub: Any, tmp_path: Path) -> None:
    slide = write_svs(tmp_path / "slide.svs", PICTURE, mpp=None)
    info = (await stub.GetSlideInfo(slides_pb2.GetSlideInfoRequest(slide_uri=str(slide)))).info
    assert (False, False) == (info.HasField("mpp_x"), info.HasField("mpp_y"))


async def test_an_analysis_streams_progress_then_chunks_then_the_result(stub: Any, slide: Path) -> None:
    events = [event async for event in stub.AnalyzeSlide(slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide), request_id="r1"))]
    kinds = [event.WhichOneof("event") for event in events]
    assert ["progress", "chunk", "result"] == list(dict.fromkeys(kinds))
    assert "result" == kinds[-1]
    last = [event.progress for event in events if event.progress.stage == "tiles"][-1]
    assert (True, True, 0.0) == (last.tiles_per_second > 0, last.HasField("seconds_left"), last.seconds_left)
    result = events[-1].result
    assert last.tiles_done == last.tiles_total == result.tiles_analyzed > 0
    report = json.loads(result.report_json)
    assert ("he_baseline", "he_baseline:1", "r1", len(NUCLEI)) == (
        result.analysis,
        result.model,
        report["request_id"],
        report["measures"]["nuclear_candidates"],
    )
    for artifact in result.artifacts:
        content = b"".join(event.chunk.data for event in events if event.chunk.name == artifact.name)
        assert (artifact.size_bytes, artifact.sha256) == (len(content), hashlib.sha256(content).hexdigest())


async def test_a_request_may_tell_the_resolution_and_the_place_of_artifacts(stub: Any, tmp_path: Path) -> None:
    slide = write_svs(tmp_path / "slide.svs", PICTURE, mpp=None)
    request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide), output_uri=str(tmp_path / "out"), mpp=0.5, tile_size=256)
    result = [event async for event in stub.AnalyzeSlide(request)][-1].result
    expected = {"analysis.json", "heatmap.png", "heatmap.ome.tiff", "overlay.png", "detections.geojson.gz", "tiles.parquet"}
    assert expected == {path.name for path in (tmp_path / "out").iterdir()}
    assert 0.5 == json.loads(result.report_json)["slide"]["mpp_x"]


async def test_a_request_may_name_the_artifacts_that_it_wants(stub: Any, slide: Path, tmp_path: Path) -> None:
    request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide), output_uri=str(tmp_path / "out"), artifacts=["tiles.parquet"])
    result = [event async for event in stub.AnalyzeSlide(request)][-1].result
    assert ["analysis.json", "tiles.parquet"] == [each.name for each in result.artifacts]
    assert {"analysis.json", "tiles.parquet"} == {path.name for path in (tmp_path / "out").iterdir()}


async def test_an_artifact_that_there_is_not_is_refused_before_any_work(stub: Any, slide: Path) -> None:
    request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide), artifacts=["mask.ome.tiff"])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        [event async for event in stub.AnalyzeSlide(request)]
    assert "he_baseline makes no artifact called mask.ome.tiff; it makes: analysis.json, heatmap.png" in str(refused.value.details())


async def test_tiles_of_a_client_are_analysed(stub: Any) -> None:
    tile = slides_pb2.Tile(id="t", rgb=PICTURE.tobytes(), width=800, height=600)
    response = await stub.AnalyzeTiles(slides_pb2.AnalyzeTilesRequest(tiles=[tile], mpp=0.5))
    assert ("he_baseline:1", "t", len(NUCLEI)) == (response.model, response.tiles[0].id, len(response.tiles[0].points))
