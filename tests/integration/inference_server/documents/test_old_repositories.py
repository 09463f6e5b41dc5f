"""Text models as earlier releases built them, the wheel's own files, are served as they are."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import grpc.aio
import numpy as np
import onnx
import pytest
from lamina.v1 import documents_pb2, documents_pb2_grpc

from inference_server.models.builders.ppocr import DETECTOR, RECOGNIZER
from tests.support.documents.printed_pages import LAB_REPORT_TEXT, lab_report_pdf
from tests.support.inference_server.server_process import running_server

CONFIG = """name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [{{ name: "x" data_type: TYPE_FP32 dims: [ 3, {height}, -1 ] }}]
output [{{ name: "{output}" data_type: TYPE_FP32 dims: [ {dims} ] }}]
dynamic_batching {{ }}
model_warmup [{{
  name: "printed_text"
  batch_size: 1
  inputs {{ key: "x" value: {{ data_type: TYPE_FP32 dims: [ {sample} ] input_data_file: "x" }} }}
}}]
parameters {{ key: "lamina.tolerance" value: {{ string_value: "0.05" }} }}
"""


def write_model(models: Path, name: str, file: str, sample: tuple[int, int, int], **config: object) -> onnx.ModelProto:
    """A model of the wheel as it is, in the repository's layout."""
    model = onnx.load_model(str(files("rapidocr") / "models" / file))
    folder = models / name
    for part in ("1", "warmup"):
        (folder / part).mkdir(parents=True)
    onnx.save_model(model, folder / "1" / "model.onnx")
    (folder / "warmup" / "x").write_bytes(np.zeros(sample, "<f4").tobytes())
    dims = ", ".join(map(str, sample))
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name, output=model.graph.output[0].name, sample=dims, **config), "utf-8")
    return model


@pytest.fixture
def old_models(tmp_path: Path) -> Path:
    """A recogniser that answers the likelihood of every character in one output, without a list of known words beside it."""
    models = tmp_path / "models"
    write_model(models, DETECTOR, "PP-OCRv6_det_small.onnx", (3, 640, 640), batch=1, height=-1, dims="1, -1, -1")
    recognizer = write_model(models, RECOGNIZER, "PP-OCRv6_rec_small.onnx", (3, 48, 320), batch=8, height=48, dims="-1, 18710")
    characters = next(entry.value for entry in recognizer.metadata_props if entry.key == "character")
    (models / RECOGNIZER / "1" / "characters.txt").write_text(f"{characters}\n", "utf-8", newline="\n")
    return models


async def test_a_repository_of_an_earlier_release_is_read_by(old_models: Path, tmp_path: Path) -> None:
    with running_server(old_models, tmp_path, "--services", "documents", "--engine", "onnxruntime:float32") as server:
        assert {} == server.wait_for("ready")["broken_models"]
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            stub = documents_pb2_grpc.DocumentServiceStub(channel)
            call = stub.RecognizeDocument(documents_pb2.RecognizeDocumentRequest(content=lab_report_pdf()))
            pages = [event.page for event in [event async for event in call] if event.HasField("page")]
    assert list(LAB_REPORT_TEXT) == [page.text for page in pages]
    assert [0.9 < line.confidence <= 1 for page in pages for line in page.lines] == [True] * 7
