"""What README and examples tell to type is typed here, against a real server with the built-in models."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
import tifffile
from PIL import Image

from tests.support.documents.printed_pages import LAB_REPORT_TEXT, image_file, images_of, lab_report_pdf
from tests.support.inference_server.server_process import ROOT, ServerProcess, running_server
from tests.support.models.built_models import built_models
from tests.support.slides.he_fields import Look, paint_field

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server is started: it reads slides there."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with running_server(built_models(), folder, "--engine", "onnxruntime:float32") as server:
        server.wait_for("catalogue_ready", seconds=100)
        yield server


def _commands(heading: str) -> str:
    found = re.search(r"```sh\n(.*?)```", README[README.index(heading) :], re.DOTALL)
    assert found is not None
    return found.group(1)


def test_the_debugging_commands_of_the_readme_run_as_written(server: ServerProcess) -> None:
    if not (ROOT / ".venv" / "bin" / "buf").exists():
        pytest.skip("buf is not installed: run make setup")
    environment = {**os.environ, "LAMINA": f"http://{server.grpc}"}
    command = ["bash", "-eu", "-o", "pipefail", "-c", _commands("## Debug it")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    for told in ("inference.GRPCInferenceService/ModelInfer", '"SERVING"', '"sentence_embedding"', '"1558-6"', '"777-3"'):
        assert told in done.stdout


def test_the_commands_of_the_readme_exist() -> None:
    for program, command in sorted(set(re.findall(r"^(inference-server|bridge) ([a-z]+)", README, re.MULTILINE))):
        done = subprocess.run([str(Path(sys.executable).parent / program), command, "--help"], capture_output=True, text=True, timeout=60)
        assert (0, "") == (done.returncode, done.stderr), (program, command)


def test_the_lab_example_tells_codes_and_a_no_match(server: ServerProcess) -> None:
    done = subprocess.run([sys.executable, "examples/lab_tests.py", server.grpc], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    lines = done.stdout.splitlines()
    assert ["718-7", "1558-6", "match"] == [line.split()[-1] for line in lines]


def test_the_slide_example_streams_the_artifacts(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    slide = folder / "slide.tif"
    pixels = np.full((512, 512, 3), 240, np.uint8)
    pixels[100:400, 100:400] = (200, 120, 180)
    tifffile.imwrite(slide, pixels, tile=(256, 256), resolution=(20000, 20000), resolutionunit="CENTIMETER", photometric="rgb")
    command = [sys.executable, "examples/slide.py", str(slide), str(tmp_path / "out"), server.grpc]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    assert "he_baseline" in json.dumps(json.loads(done.stdout))
    assert {"analysis.json", "heatmap.png", "overlay.png", "detections.geojson.gz"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_field_of_view_without_a_resolution_is_analysed_as_documented(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    field = paint_field(Look(), 3)
    Image.fromarray(field.pixels).save(folder / "field.png")
    command = [sys.executable, "examples/slide.py", str(folder / "field.png"), str(tmp_path / "out"), server.grpc]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "does not tell its resolution" in refused.stderr
    done = subprocess.run([*command, "--mpp", "0.25"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert 0 == done.returncode, done.stderr
    features = json.loads(gzip.decompress((tmp_path / "out" / "detections.geojson.gz").read_bytes()))["features"]
    centres = np.array([feature["geometry"]["coordinates"] for feature in features])
    # 4 µm are 16 px. Whatever lies beside an edge of the field is found as the rest is.
    apart = np.hypot(*(field.centres[:, None] - centres[None]).transpose(2, 0, 1)).min(axis=1)
    beside = (field.centres.min(axis=1) < 16) | (field.centres.max(axis=1) > 512 - 16)
    assert np.mean(apart <= 16) > 0.8
    assert np.mean(apart[beside] <= 16) > 0.8
    nearest = centres[np.hypot(*(field.centres[:, None] - centres[None]).transpose(2, 0, 1)).argmin(axis=1)][apart <= 8]
    assert np.abs((nearest - field.centres[apart <= 8]).mean(axis=0)).max() < 1.0


def test_the_document_example_prints_the_text_and_keeps_the_files(server: ServerProcess, tmp_path: Path) -> None:
    document, out = tmp_path / "report.png", tmp_path / "out"
    document.write_bytes(image_file(images_of(lab_report_pdf())[0], "PNG"))
    command = [sys.executable, "examples/document.py", str(document), str(out), server.grpc]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (0, LAB_REPORT_TEXT[0], "1 pages, 0 failed") == (done.returncode, done.stdout.strip(), done.stderr.strip())
    assert {"document.hocr", "document.alto.xml", "document.tsv", "document.pdf"} == {path.name for path in out.iterdir()}
    assert "Hemoglobin" in pypdfium2.PdfDocument(out / "document.pdf")[0].get_textpage().get_text_range()
