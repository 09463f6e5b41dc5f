"""Requests that are right, to be broken by a fuzz."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from typing import Any

from inference import grpc_service_pb2 as wire
from lamina.v1 import documents_pb2, labs_pb2, slides_pb2
from PIL import Image

from tests.support.documents.pdf import Text, pdf

# Of the object of shared memory that the requests name.
PREFIX = "lamina-fuzz-"
KEY = f"{PREFIX}{os.getpid()}"


def _valid_inferences() -> Iterator[wire.ModelInferRequest]:
    for raw in (True, False):
        request = wire.ModelInferRequest(model_name="sum_and_difference", id="fuzz")
        for name in ("a", "b"):
            tensor = request.inputs.add(name=name, datatype="FP32", shape=[2, 4])
            if raw:
                request.raw_input_contents.append(bytes(32))
            else:
                tensor.contents.fp32_contents.extend([1.0] * 8)
        yield request
    request = wire.ModelInferRequest(model_name="text_identity")
    request.inputs.add(name="text", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(b"\x02\x00\x00\x00ab")
    yield request
    # So large that the server takes it apart by hand.
    request = wire.ModelInferRequest(model_name="text_identity", id="large")
    request.inputs.add(name="text", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", 70_000) + b"x" * 70_000)
    yield request


def _settings_messages() -> Iterator[Any]:
    """Settings of logs and of traces; those that would hide what the server logs are set back at once."""
    logs = wire.LogSettingsRequest()
    for name in ("log_info", "log_warning", "log_error"):
        logs.settings[name].bool_param = True
    logs.settings["log_verbose_level"].uint32_param = 0
    yield logs
    for name in ("log_file", "log_format"):
        yield wire.LogSettingsRequest(settings={name: wire.LogSettingsRequest.SettingValue(string_param="x")})
    for model in ("", "sum_and_difference", "none"):
        traces = wire.TraceSettingRequest(model_name=model)
        for name, value in (("trace_level", "TIMESTAMPS"), ("trace_rate", "2"), ("trace_count", "1000")):
            traces.settings[name].value.append(value)
        yield traces
        yield wire.TraceSettingRequest(model_name=model, settings={"trace_level": {}, "trace_rate": {}, "trace_count": {}})
    yield wire.TraceSettingRequest(settings={"trace_file": {"value": ["/tmp/x"]}, "log_frequency": {"value": ["1", "2"]}})


def _shared_memory_messages() -> Iterator[Any]:
    """In an order in which they are right."""
    for name in ("region", "other"):
        yield wire.SystemSharedMemoryRegisterRequest(name=name, key=f"/{KEY}", offset=0, byte_size=4096)
        yield wire.SystemSharedMemoryStatusRequest(name=name)
    request = wire.ModelInferRequest(model_name="sum_and_difference", id="shared")
    for place, name in enumerate("ab"):
        tensor = request.inputs.add(name=name, datatype="FP32", shape=[2, 4])
        _put_in_shared_memory(tensor.parameters, offset=32 * place, size=32)
    _put_in_shared_memory(request.outputs.add(name="sum").parameters, offset=1024, size=64)
    yield request
    yield wire.SystemSharedMemoryRegisterRequest(name="beyond", key=f"/{KEY}", offset=4000, byte_size=97)
    yield wire.SystemSharedMemoryUnregisterRequest(name="other")
    yield wire.SystemSharedMemoryUnregisterRequest()


def _put_in_shared_memory(parameters: Any, *, offset: int, size: int) -> None:
    parameters["shared_memory_region"].string_param = "region"
    parameters["shared_memory_offset"].int64_param = offset
    parameters["shared_memory_byte_size"].int64_param = size


def _picture(kind: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (64, 48), (200, 180, 220)).save(content, kind)
    return content.getvalue()


def valid_messages() -> tuple[Any, ...]:
    """Requests that are right, to be broken; of all kinds whose fields must fit together."""
    tile = slides_pb2.Tile(id="t", rgb=bytes(8 * 8 * 3), width=8, height=8)
    encoded = slides_pb2.Tile(id="e", encoded=_picture("PNG"))
    load = wire.RepositoryModelLoadRequest(model_name="sum_and_difference")
    load.parameters["config"].string_param = '{"max_batch_size": 4}'
    return (
        *_valid_inferences(),
        *_settings_messages(),
        *_shared_memory_messages(),
        load,
        wire.RepositoryModelLoadRequest(model_name="text_identity"),
        slides_pb2.AnalyzeTilesRequest(analysis="he_baseline", tiles=[tile], mpp=0.5),
        slides_pb2.AnalyzeTilesRequest(analysis="he_baseline", tiles=[encoded], mpp=0.5),
        slides_pb2.AnalyzeSlideRequest(slide_uri="slide.png", mpp=0.5),
        documents_pb2.RecognizeDocumentRequest(content=_picture("PNG")),
        documents_pb2.RecognizeDocumentRequest(content=_picture("TIFF")),
        documents_pb2.RecognizeDocumentRequest(content=pdf([[Text(text="fuzz", x=20, y=20)]], (90, 60)), dpi=72),
        labs_pb2.ClassifyLabTestsRequest(tests=[labs_pb2.LabTest(name="Hemoglobin", value="13", unit="g/dL")]),
        labs_pb2.SearchLoincRequest(query="glucose", limit=3),
        labs_pb2.EmbedRequest(texts=["glucose"]),
    )
