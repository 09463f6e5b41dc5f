"""tiles.parquet, opened as its readers open it."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pyarrow import parquet

from inference_server.errors import Unavailable
from inference_server.scheduler.port import Caller
from inference_server.tasks.slides.outputs import table
from inference_server.tasks.slides.values import AnalysisRequest, Progress
from tests.support.slides.he_fields import Look, paint_field
from tests.support.slides.painted import paint, scattered, with_fold, with_ink, write_svs
from tests.support.slides.tile_models import write_classifier, write_embedder, write_head, write_segmenter

NUCLEI = scattered(60, within=(120, 100, 680, 500), apart=25)
PICTURE = paint(800, 600, tissue=(100, 80, 700, 520), nuclei=NUCLEI)
PLACES = {"x": "int32", "y": "int32", "width": "int32", "height": "int32", "tissue": "float", "pen": "float", "folded": "float"}


def types(read: Any) -> dict[str, str]:
    return {field.name: str(field.type) for field in read.schema}


async def test_there_is_one_row_a_tile_with_its_place_and_figures(analyses: Any, tmp_path: Path) -> None:
    # Half the resolution, so that a level-0 pixel is not a pixel of the analysis.
    found = await analyses.run(write_svs(tmp_path / "slide.svs", PICTURE, mpp=0.25), tile_size=64)
    read = parquet.read_table(found.folder / "tiles.parquet")
    rows = read.to_pydict()

    figures = dict.fromkeys(("sharpness", "blurred_share", "mean_haematoxylin_od", "mean_eosin_od"), "float")
    assert {**PLACES, **figures, "nuclear_candidates": "int32", "engine": "string"} == types(read)
    assert found.result.tiles_analyzed == read.num_rows
    assert {128} == set(rows["width"]) - {800 - 6 * 128}
    for first, size, most in (("x", "width", 800), ("y", "height", 600)):
        assert max(map(sum, zip(rows[first], rows[size], strict=True))) <= most
    assert found.report["measures"]["nuclear_candidates"] == sum(rows["nuclear_candidates"])
    assert all(0 < share <= 1 for share in rows["tissue"])


async def test_the_figures_of_tiles_add_up_to_those_of_the_slide(analyses: Any, tmp_path: Path) -> None:
    found = await analyses.run(write_svs(tmp_path / "slide.svs", PICTURE), tile_size=64)
    rows = {name: np.array(values) for name, values in parquet.read_table(found.folder / "tiles.parquet").to_pydict().items()}
    weights = rows["tissue"] / rows["tissue"].sum()

    for name in ("mean_haematoxylin_od", "mean_eosin_od"):
        # Cells at the slide's edge weigh less on the slide; there is no tissue here.
        assert pytest.approx(found.report["measures"][name], abs=2e-6) == float((rows[name] * weights).sum())
    assert pytest.approx(found.report["measures"]["blurred_tissue_share"], abs=2e-6) == float((rows["blurred_share"] * weights).sum())


async def test_ink_and_folds_are_told_by_tile_and_by_slide(analyses: Any, tmp_path: Path) -> None:
    picture = with_fold(with_ink(PICTURE, "green", (300, 0, 400, 600)), (496, 80, 576, 520))
    found = await analyses.run(write_svs(tmp_path / "slide.svs", picture), tile_size=64)
    rows = {name: np.array(values) for name, values in parquet.read_table(found.folder / "tiles.parquet").to_pydict().items()}
    tissue = found.report["tissue"]

    assert pytest.approx(100 * 600 * 0.25e-6, rel=0.05) == tissue["pen_mm2"]
    assert pytest.approx(80 * 440 * 0.25e-6, rel=0.15) == tissue["folded_mm2"]
    assert pytest.approx(tissue["folded_mm2"] / tissue["area_mm2"], abs=1e-5) == tissue["folded_share"]
    assert pytest.approx(tissue["folded_share"], abs=1e-5) == float((rows["folded"] * rows["tissue"]).sum() / rows["tissue"].sum())
    # Tiles at both borders of the stroke have tissue beside it; those right under it have none, and are no rows.
    inked = rows["pen"] > 0
    assert {256, 384} == set(rows["x"][inked].tolist())
    assert {448, 512, 576} >= set(rows["x"][rows["folded"] > 0.05].tolist())
    assert not [x for x, _ in found.points if 304 < x < 396]


async def test_a_classifiers_rows_have_its_classes(analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    write_classifier(tmp_path / "models")
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", PICTURE), analysis="pinkness")
    read = parquet.read_table(found.folder / "tiles.parquet")
    rows = read.to_pydict()

    assert {
        **PLACES,
        "sharpness": "float",
        "blurred_share": "float",
        "class": "string",
        "p(glass)": "float",
        "p(tissue)": "float",
        "engine": "string",
    } == types(read)
    assert len(found.features) == read.num_rows
    for name, glass, tissue in zip(rows["class"], rows["p(glass)"], rows["p(tissue)"], strict=True):
        assert ("tissue" if tissue > glass else "glass") == name
        assert pytest.approx(1.0, abs=1e-6) == glass + tissue


@pytest.mark.parametrize("kind", ["classifier", "embedder", "segmenter"])
async def test_blurred_tissue_is_told_by_tile_of_every_kind(analyses_with: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    made = {"classifier": write_classifier, "embedder": write_embedder, "segmenter": write_segmenter}[kind](tmp_path / "models")
    painted = paint_field(Look(noise=1), 3, edge=1024, mpp=0.5).pixels.copy()
    painted[:, 512:] = cv2.GaussianBlur(painted, (0, 0), 3)[:, 512:]
    found = await analyses_with(tmp_path / "models").run(write_svs(tmp_path / "slide.svs", painted), analysis=made.name)
    rows = {name: np.array(values) for name, values in parquet.read_table(found.folder / "tiles.parquet").to_pydict().items()}

    # A segmenter's tiles overlap, and some lie on the border.
    sharp, blurred = rows["x"] + rows["width"] <= 512, rows["x"] >= 512
    assert 32 <= sharp.sum() <= blurred.sum() + 10
    # The slide's edge, beyond which is white, is sharp: tiles there have little tissue.
    assert 0.05 > np.average(rows["blurred_share"][sharp], weights=rows["tissue"][sharp])
    assert 0.9 < np.average(rows["blurred_share"][blurred], weights=rows["tissue"][blurred])


async def test_a_blank_slide_has_the_columns_and_no_rows(analyses: Any, tmp_path: Path) -> None:
    found = await analyses.run(write_svs(tmp_path / "blank.svs", paint(400, 300, tissue=None)))
    read = parquet.read_table(found.folder / "tiles.parquet")

    assert (0, "int32") == (read.num_rows, types(read)["nuclear_candidates"])


async def test_rows_are_written_in_portions_and_the_file_says_what_it_is(
    analyses: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "_ROWS", 10)
    found = await analyses.run(write_svs(tmp_path / "slide.svs", PICTURE), tile_size=64)
    file = parquet.ParquetFile(found.folder / "tiles.parquet")

    assert 10 == max(file.metadata.row_group(index).num_rows for index in range(file.num_row_groups))
    told = {name.decode(): value.decode() for name, value in file.schema_arrow.metadata.items()}
    assert {
        "lamina.schema": "lamina.slide-tiles/1",
        "lamina.analysis": "he_baseline",
        "lamina.model": "he_baseline:1",
        "lamina.engine": "onnxruntime:float32",
    } == told


async def test_the_columns_are_the_documented_ones(analyses: Any, analyses_with: Callable[..., Any], tmp_path: Path) -> None:
    text = (Path(__file__).parents[4] / "docs" / "slides.md").read_text(encoding="utf-8")
    lines = [line.split("|")[1:4] for line in text.partition("| Column | Type |")[2].partition("\n\n")[0].splitlines()[2:]]
    told = {(name, kind.strip(), of.strip(" `")) for names, kind, of in lines for name in re.findall("`([^`]+)`", names)}

    for write in (write_classifier, write_embedder, write_head, write_segmenter):
        write(tmp_path / "models")
    slide = write_svs(tmp_path / "slide.svs", PICTURE)
    own = {"classifiers": "pinkness", "embedders": "colours", "heads": "judge", "segmenters": "stains"}
    runs = {"he_baseline": (analyses, ""), **{kind: (analyses_with(tmp_path / "models"), name) for kind, name in own.items()}}
    for kind, (ran, analysis) in runs.items():
        found = await ran.run(slide, analysis=analysis)
        real = types(parquet.read_table(found.folder / "tiles.parquet"))
        expected = {name: form for name, form, of in told if of in ("all", kind)}
        assert expected == {re.sub(r"\(.+\)", "(NAME)", name): form for name, form in real.items()}


@pytest.mark.parametrize("program", ["bridge.app", "inference_server.app"])
def test_no_program_imports_what_only_artifacts_need(program: str) -> None:
    code = f"import sys, {program}; sys.exit(bool({{'pyarrow', 'tifffile', 'pydicom', 'highdicom'}} & set(sys.modules)))"
    assert 0 == subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], check=False).returncode


async def test_a_disk_that_takes_none_of_the_files_is_told_as_such(analyses: Any, tmp_path: Path) -> None:
    slide = write_svs(tmp_path / "slide.svs", PICTURE)
    request = AnalysisRequest(slide_uri=str(slide), output_uri=str(tmp_path / "out" / "full"), tile_size=64)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def analyse() -> None:
        async for event in analyses.analyzer.analyze(request, Caller()):
            if isinstance(event, Progress) and event.stage == "writing":
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    try:
        with pytest.raises(Unavailable, match=r"temporary folder takes no more of an analysis .* set TMPDIR"):
            await analyse()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
