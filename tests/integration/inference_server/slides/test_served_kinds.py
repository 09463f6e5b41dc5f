"""Each kind of manifest through the whole server: repository, scheduler, engine and gRPC."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import geojson
import grpc.aio
import onnx
import pytest
from lamina.v1 import slides_pb2, slides_pb2_grpc

from tests.support.inference_server.running_application import running_application
from tests.support.slides.painted import paint, scattered, write_svs
from tests.support.slides.tile_models import write_classifier, write_embedder, write_head, write_segmenter

COMMON = {"analysis.json", "heatmap.png", "heatmap.ome.tiff", "overlay.png", "detections.geojson.gz", "tiles.parquet"}
FILES = {
    "pinkness": COMMON,
    "colours": COMMON | {"embeddings.parquet"},
    "judge": COMMON | {"embeddings.parquet"},
    "batched_judge": COMMON | {"embeddings.parquet"},
    "stains": COMMON | {"mask.ome.tiff"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    for write in (write_classifier, write_embedder, write_segmenter, write_head):
        write(models)
    write_head(models, "batched_judge", batched=True)
    picture = paint(800, 600, tissue=(50, 50, 750, 550))
    picture[100:300, 100:400] = (110, 60, 140)
    write_svs(tmp_path / "slide.svs", picture)
    return tmp_path


async def test_every_kind_is_served_with_its_files(folder: Path) -> None:
    roots = {"read_roots": str(folder), "write_roots": str(folder / "out")}
    async with (
        running_application(folder / "models", folder, **roots) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        stub = slides_pb2_grpc.SlideServiceStub(channel)
        for analysis, files in FILES.items():
            out = folder / "out" / analysis
            request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(folder / "slide.svs"), analysis=analysis, output_uri=str(out))
            result = [event async for event in stub.AnalyzeSlide(request)][-1].result
            assert analysis == json.loads(result.report_json)["analysis"] == result.analysis
            assert files == {each.name for each in result.artifacts} == {path.name for path in out.iterdir()}
            check_features(out / "detections.geojson.gz")


def check_features(path: Path) -> None:
    """By a reader of GeoJSON that knows RFC 7946, and not us."""
    found = geojson.loads(gzip.decompress(path.read_bytes()))
    assert isinstance(found, geojson.FeatureCollection)
    assert found.is_valid, found.errors()
    assert len(found.features) > 0
    assert {geojson.Feature} == {type(each) for each in found.features}


@pytest.mark.parametrize("tile_size", [64, 128, 2048])
async def test_tiles_of_every_size_that_is_taken_are_served(tmp_path: Path, models: Path, tile_size: int) -> None:
    """Smaller ones than the model takes together in one call, and larger ones than it is given whole."""
    tissue = (50, 50, 1150, 850)
    slide = write_svs(tmp_path / "slide.svs", paint(1200, 900, tissue=tissue, nuclei=scattered(150, within=tissue, apart=30)))
    roots = {"read_roots": str(tmp_path), "write_roots": str(tmp_path / "out")}
    async with (
        running_application(models, tmp_path, **roots) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        stub = slides_pb2_grpc.SlideServiceStub(channel)
        counts = []
        for size in (tile_size, 512):
            request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(slide), tile_size=size)
            result = [event async for event in stub.AnalyzeSlide(request)][-1].result
            counts.append(json.loads(result.report_json)["measures"]["nuclear_candidates"])
    assert counts[0] == counts[1] > 100


async def test_a_network_of_one_tile_at_a_time_judges_as_one_of_many(folder: Path) -> None:
    """As exports have it that were made without a dynamic axis."""
    path = write_classifier(folder / "models", "alone") / "1" / "model.onnx"
    network = onnx.load(str(path))
    for tensor in (*network.graph.input, *network.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, str(path))
    pixels = paint(64, 192, tissue=(0, 64, 64, 192)).reshape(3, 64, 64, 3)
    tiles = [slides_pb2.Tile(id=str(number), rgb=each.tobytes(), width=64, height=64) for number, each in enumerate(pixels)]
    async with (
        running_application(folder / "models", folder, read_roots=str(folder), write_roots=str(folder / "out")) as application,
        grpc.aio.insecure_channel(application.grpc.address) as channel,
    ):
        stub = slides_pb2_grpc.SlideServiceStub(channel)
        scores, measures = [], []
        for analysis in ("alone", "pinkness"):
            answer = await stub.AnalyzeTiles(slides_pb2.AnalyzeTilesRequest(analysis=analysis, tiles=tiles, mpp=1.0))
            scores.append([round(each.scores["tissue"], 4) for each in answer.tiles])
            request = slides_pb2.AnalyzeSlideRequest(slide_uri=str(folder / "slide.svs"), analysis=analysis)
            measures.append(json.loads([event async for event in stub.AnalyzeSlide(request)][-1].result.report_json)["measures"])
    assert ([0, 1, 1], scores[1]) == ([round(each) for each in scores[0]], scores[0])
    areas = [[each["area_mm2"] for each in found["classes"]] for found in measures]
    assert areas[0] == areas[1]
