"""Tile classifiers of the repository, described by slide.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from inference_server.errors import ConfigurationError, InvalidInput, NotFound
from tests.support.slides.painted import paint, write_svs
from tests.support.slides.tile_models import write_classifier

WIDTH, HEIGHT = 1024, 768
SCHEMA = json.loads((Path(__file__).parents[4] / "docs" / "analysis.schema.json").read_text())


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Tissue on the left half: pink above, pale below. At 0.5 µm/px; tiles of 64 px at 1 µm/px are 128 px of it."""
    picture = paint(WIDTH, HEIGHT, tissue=(0, 0, 512, HEIGHT))
    picture[384:, :512] = (215, 190, 210)
    return picture


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
async def test_areas_are_those_of_the_likeliest_class(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8], layout: str
) -> None:
    write_classifier(tmp_path / "models", layout=layout)
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="pinkness")
    jsonschema.validate(found.report, SCHEMA)
    half = 512 * 384 * 0.25 / 1e6
    assert ["glass", "tissue"] == [each["name"] for each in found.report["measures"]["classes"]]
    assert [pytest.approx(half, rel=0.05)] * 2 == [each["area_mm2"] for each in found.report["measures"]["classes"]]
    assert "tissue" == found.report["measures"]["positive_class"]
    assert found.report["model"]["learned_weights"]


async def test_features_are_rectangles_of_their_class(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    write_classifier(tmp_path / "models", colors={"tissue": [200, 0, 100]})
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="pinkness")
    first = found.features[0]
    assert [[[0.0, 0.0], [128.0, 0.0], [128.0, 128.0], [0.0, 128.0], [0.0, 0.0]]] == first["geometry"]["coordinates"]
    assert ("annotation", {"name": "tissue", "color": [200, 0, 100]}) == (
        first["properties"]["objectType"],
        first["properties"]["classification"],
    )
    assert pytest.approx(1.0) == sum(first["properties"]["measurements"].values())
    assert 4 * 6 == len(found.features)


@pytest.mark.parametrize("asked", [{"tile_size": 67}, {"tile_size": 66, "overlap": 2}, {"tile_size": 1000}])
async def test_tiles_of_any_size_share_the_tissue_among_them(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8], asked: dict[str, int]
) -> None:
    write_classifier(tmp_path / "models", least_tissue=0.0, **asked)
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="pinkness")
    tiles, core = parquet.read_table(found.folder / "tiles.parquet"), asked["tile_size"] - asked.get("overlap", 0)
    # Cells of 8 µm, and none of the tiles begins past the slide's edge.
    assert 8.0 == found.report["tissue"]["cell_um"]
    assert min(*tiles["width"].to_pylist(), *tiles["height"].to_pylist()) > 0
    area = found.report["tissue"]["area_mm2"]
    assert pytest.approx(area, abs=2e-6) == found.report["measures"]["classified_tissue_mm2"]
    assert pytest.approx(area, rel=0.02) == sum(tiles["tissue"].to_pylist()) * core**2 * 1e-6


async def test_where_no_tile_has_enough_tissue_the_report_says_so(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    write_classifier(tmp_path / "models", tile_size=2048, least_tissue=0.25)
    ran, slide = analyses_with(tmp_path / "models"), write_svs(tmp_path / "slide.svs", picture)
    note = "No tile of 2048 µm has more than 25% of tissue (least_tissue), so that none was analysed."
    assert note in (await ran.run(slide, analysis="pinkness")).report["notes"]
    # A blank slide has nothing to be left out.
    blank = write_svs(tmp_path / "blank.svs", paint(600, 400, tissue=None))
    assert note not in (await ran.run(blank, analysis="pinkness")).report["notes"]


async def test_where_more_is_taken_for_ink_than_for_tissue_the_report_says_so(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    """As of a stain that has the colours of a pen: else all of it would be missing without a word."""
    write_classifier(tmp_path / "models")
    ran = analyses_with(tmp_path / "models")
    blue = np.full((400, 600, 3), 243, np.uint8)
    blue[80:320, 100:500] = (100, 150, 205)
    told = [
        any("More of the slide has colours of ink" in note for note in (await ran.run(slide, analysis="pinkness")).report["notes"])
        for slide in (write_svs(tmp_path / "blue.svs", blue), write_svs(tmp_path / "slide.svs", picture))
    ]
    assert [True, False] == told


async def test_stains_of_the_colours_of_ink_are_analysed_where_the_manifest_keeps_them(
    analyses_with: Callable[..., Any], tmp_path: Path
) -> None:
    blue = np.full((400, 600, 3), 243, np.uint8)
    blue[80:320, 100:500] = (100, 150, 205)
    slide = write_svs(tmp_path / "blue.svs", blue)
    for name, asked in (("left", {}), ("kept", {"ink": "keep"})):
        write_classifier(tmp_path / "models", name, **asked)
    ran = analyses_with(tmp_path / "models")
    left, kept = [(await ran.run(slide, analysis=name)).report for name in ("left", "kept")]
    assert (0, 0) == (left["tiles"]["analyzed"], kept["tissue"]["pen_mm2"])
    assert kept["tiles"]["analyzed"] > 0
    assert left["tissue"]["pen_mm2"] == pytest.approx(kept["tissue"]["area_mm2"], rel=0.1)
    assert not [note for note in kept["notes"] if "ink" in note]


async def test_the_heatmap_shows_the_positive_class(analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    write_classifier(tmp_path / "models", positive="glass")
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="pinkness")
    with Image.open(found.folder / "heatmap.png") as heatmap:
        edge = heatmap.width // 8
        colours = np.asarray(heatmap.convert("RGB")).sum(axis=2)
    assert colours[edge // 2, edge // 2] < colours[-edge // 2, edge // 2]


async def test_one_logit_is_that_of_the_second_of_two_classes(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    slide = write_svs(tmp_path / "slide.svs", picture)
    found = []
    for name, options in (("one", {"single": True, "activation": "sigmoid"}), ("two", {})):
        write_classifier(tmp_path / name, **options)
        found.append((await analyses_with(tmp_path / name).run(slide, analysis="pinkness")).report["measures"])
    assert found[0]["classes"][0]["area_mm2"] > 0 < found[0]["classes"][1]["area_mm2"]
    assert found[1] == found[0]


async def test_one_logit_cannot_be_one_of_softmax(analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    write_classifier(tmp_path / "models", single=True)
    with pytest.raises(ConfigurationError, match=r"puts out 1 values a tile.* needs the activation sigmoid or none"):
        await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="pinkness")


async def test_tiles_that_a_client_sends_are_classified(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    from inference_server.scheduler.port import Caller
    from inference_server.tasks.slides.values import ClientTile

    write_classifier(tmp_path / "models")
    tiles = [
        ClientTile(id=name, rgb=np.ascontiguousarray(picture[y : y + 64, :64]).tobytes(), width=64, height=64)
        for name, y in (("pink", 0), ("pale", 500))
    ]
    found, model = await analyses_with(tmp_path / "models").analyzer.analyze_tiles("pinkness", tiles, 1.0, Caller())
    assert ("pinkness:1", ["pink", "pale"]) == (model, [each.id for each in found])
    assert [True, False] == [each.scores["tissue"] > 0.5 for each in found]


async def test_another_tile_size_than_the_models_is_refused(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    write_classifier(tmp_path / "models")
    with pytest.raises(InvalidInput, match="pinkness takes 64 px"):
        await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="pinkness", tile_size=256)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"mpp": 0}, "mpp: Input should be greater than 0"),
        ({"mppp": 1}, "mppp: there is no such key"),
        ({"classes": ["a", "a"]}, "the same name twice"),
        ({"positive": "tumour"}, "name tumour, which classes lacks"),
        ({"classes": ["a", "b", "c"]}, "puts out 2 values a tile, and slide.json names 3 classes"),
        ({"output": "nosuch"}, "names the output nosuch; the model has: logits"),
    ],
)
async def test_a_manifest_that_is_wrong_is_told(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8], manifest: dict[str, Any], message: str
) -> None:
    write_classifier(tmp_path / "models", **manifest)
    with pytest.raises(ConfigurationError) as caught:
        await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="pinkness")
    assert message in str(caught.value)


async def test_what_is_no_model_is_not_found_and_the_others_are_named(
    analyses_with: Callable[..., Any], tmp_path: Path, picture: NDArray[np.uint8]
) -> None:
    write_classifier(tmp_path / "models")
    with pytest.raises(NotFound, match="there are: he_baseline, pinkness"):
        await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", picture), analysis="../pinkness")
