"""Each limit has a setting, and what passes it names it, so that the refusals of each are counted under its name."""

from __future__ import annotations

import asyncio
import http.server
import io
import re
import threading
import urllib.request
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import pytest
from lamina.v1 import slides_pb2
from PIL import Image
from prometheus_client import CollectorRegistry

from inference_server.errors import InferenceError
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.dispatch.admission import Admission, QueueLimits
from inference_server.scheduler.port import Caller
from inference_server.scheduler.registry import ServingModels
from inference_server.service.errors import status_of
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.metrics.calls import CallMetrics
from inference_server.service.metrics.connections import ConnectionMetrics
from inference_server.service.open_inference.shared_memory import SharedMemory
from inference_server.service.open_inference.streaming import InferStream
from inference_server.service.open_inference.wire_format import parse_request
from inference_server.service.request_limits import RequestLimits
from inference_server.service.server import Connection, GrpcServer
from inference_server.settings import Settings
from inference_server.storage.storage import Storage
from inference_server.tasks.documents.pdf.processes import PdfProcesses
from inference_server.tasks.documents.reader import DocumentReader, DocumentRequest
from inference_server.tasks.documents.values import Limits as DocumentLimits
from inference_server.tasks.labs.classifier import LabClassifier
from inference_server.tasks.labs.limits import Limits as LabLimits
from inference_server.tasks.labs.parsing.normalise import PrintedTest
from inference_server.tasks.slides.analysis import SlideAnalyzer
from inference_server.tasks.slides.readers.opening import open_slide
from inference_server.tasks.slides.readers.staging import Staging
from inference_server.tasks.slides.values import ClientTile, SlideLimits
from tests.support.documents.hostile_pdfs import BOMBS
from tests.support.documents.pdf import Text, pdf
from tests.support.inference_server.running_application import running_application
from tests.support.slides.painted import paint, write_jpeg_tiff

ANYBODY = Caller()
SERVING = Path(__file__).parents[3] / "docs" / "serving.md"
PICTURE = paint(96, 64, tissue=None)


@pytest.fixture
def models(tmp_path: Path) -> ServingModels:
    """A repository with nothing in it: every limit is checked before a model is asked."""
    (tmp_path / "models").mkdir()
    return ServingModels(ModelRepository(tmp_path / "models"), {}, metrics=CollectorRegistry())


Passing = Callable[[Path, ServingModels], Awaitable[Any]]
CASES: dict[str, Passing] = {}


def passing(limit: str) -> Callable[[Passing], Passing]:
    """Register what passes a limit."""

    def register(case: Passing) -> Passing:
        CASES[limit] = case
        return case

    return register


# These keep callers waiting instead of refusing them.
WAITING = {"streams", "stream_requests"}


@passing("message_bytes")
async def _message_bytes(folder: Path, models: ServingModels) -> None:
    RequestLimits(message_bytes=9).check_size(10)


@passing("tensors")
async def _tensors(folder: Path, models: ServingModels) -> None:
    request = parse_request(b"").message
    for name in "abc":
        request.inputs.add(name=name)
    RequestLimits(tensors=2).check(request)


@passing("name_characters")
async def _name_characters(folder: Path, models: ServingModels) -> None:
    RequestLimits(name_characters=9).check(slides_pb2.AnalyzeTilesRequest(analysis="x" * 10))


@passing("uri_characters")
async def _uri_characters(folder: Path, models: ServingModels) -> None:
    RequestLimits(uri_characters=9).check(slides_pb2.GetSlideInfoRequest(slide_uri="x" * 10))


@passing("connections")
async def _connections(folder: Path, models: ServingModels) -> None:
    """A client that is turned away is told nothing; the counter is."""
    refused: list[str] = []
    metrics = ConnectionMetrics(CollectorRegistry(), limit_refused=refused.append)
    server = GrpcServer(
        address="127.0.0.1:0", services=[], lifecycle=Lifecycle(), connection=Connection(max_connections=1), metrics=metrics
    )
    await server.start()
    _, port = server.address.split(":")
    writers = [(await asyncio.open_connection("127.0.0.1", int(port)))[1] for _ in range(2)]
    async with asyncio.timeout(60):
        while not refused:
            await asyncio.sleep(0.02)
    for writer in writers:
        writer.close()
    await server.stop(grace_seconds=0, drain_seconds=0, hurry=asyncio.Event())
    raise InferenceError("as counted", limit=refused[0])


@passing("calls")
async def _calls(folder: Path, models: ServingModels) -> None:
    lifecycle = Lifecycle(most_calls=1)
    lifecycle.enter()
    lifecycle.enter()


@passing("bytes_in_flight")
async def _bytes_in_flight(folder: Path, models: ServingModels) -> None:
    bytes_in_flight = BytesInFlight(most=10)
    bytes_in_flight.try_hold(10)
    request = replace(parse_request(b""), size=1)

    async def requests() -> Any:
        yield request

    async def infer(request: Any) -> Any:
        raise AssertionError("not admitted")

    stream = InferStream(infer, lifecycle=Lifecycle(), bytes_in_flight=bytes_in_flight, most_requests=1, ends_at_errors=True)
    async for _ in stream.responses(requests()):
        pass


@passing("queue_requests")
async def _queue_requests(folder: Path, models: ServingModels) -> None:
    admission = Admission(QueueLimits(max_requests=1, max_bytes=100))
    admission.enter(1, 0.0)
    admission.enter(1, 0.0)


@passing("queue_bytes")
async def _queue_bytes(folder: Path, models: ServingModels) -> None:
    admission = Admission(QueueLimits(max_requests=9, max_bytes=100))
    admission.enter(60, 0.0)
    admission.enter(60, 0.0)


async def _open(path: Path, **limits: int) -> None:
    storage = Storage(read_roots=(str(path.parent),), write_roots=())
    async with open_slide(storage, str(path), SlideLimits(**limits), Staging(storage, most_bytes=0)):
        pass


@passing("slide_pixels")
async def _slide_pixels(folder: Path, models: ServingModels) -> None:
    await _open(write_jpeg_tiff(folder / "slide.tif", [PICTURE]), most_slide_pixels=96 * 64 - 1)


@passing("tile_pixels")
async def _tile_pixels(folder: Path, models: ServingModels) -> None:
    await _open(write_jpeg_tiff(folder / "slide.tif", [PICTURE]), most_tile_pixels=9)


@passing("image_pixels")
async def _image_pixels(folder: Path, models: ServingModels) -> None:
    Image.fromarray(PICTURE).save(folder / "slide.png")
    await _open(folder / "slide.png", most_image_pixels=96 * 64 - 1)


@passing("request_pixels")
async def _request_pixels(folder: Path, models: ServingModels) -> None:
    tiles = [ClientTile(id="a", rgb=PICTURE.tobytes(), width=96, height=64)] * 2
    slides = SlideAnalyzer(
        inference=models,
        storage=Storage(read_roots=(), write_roots=()),
        models=folder / "models",
        limits=SlideLimits(most_request_pixels=96 * 64),
    )
    await slides.analyze_tiles("", tiles, 0.5, ANYBODY)


@passing("staged_bytes")
async def _staged_bytes(folder: Path, models: ServingModels) -> None:
    Image.fromarray(PICTURE).save(folder / "slide.png")
    with _web_server(folder) as root:
        storage = Storage(read_roots=(root,), write_roots=())
        async with open_slide(storage, f"{root}/slide.png", SlideLimits(), Staging(storage, most_bytes=9)):
            pass


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files, and the first bytes of them, as object storage does."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if wanted is None:
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def _web_server(folder: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


async def _read(folder: Path, models: ServingModels, request: DocumentRequest, **limits: int) -> list[str]:
    refused: list[str] = []
    reader = DocumentReader(
        models, Storage(read_roots=(str(folder),), write_roots=()), folder, limits=DocumentLimits(**limits), refused=refused.append
    )
    async for _ in reader.read(request, ANYBODY):
        pass
    return refused


@passing("document_bytes")
async def _document_bytes(folder: Path, models: ServingModels) -> None:
    (folder / "a.pdf").write_bytes(pdf([[Text(text="a", x=9, y=9)]]))
    with pytest.raises(InferenceError) as by_place:
        await _read(folder, models, DocumentRequest(uri=str(folder / "a.pdf")), most_bytes=9)
    assert by_place.value.limit == "document_bytes"
    await _read(folder, models, DocumentRequest(content=pdf([[]])), most_bytes=9)


@passing("document_pages")
async def _document_pages(folder: Path, models: ServingModels) -> None:
    await _read(folder, models, DocumentRequest(content=pdf([[], []])), most_pages=1)


async def _refused_page(folder: Path, models: ServingModels, **limits: float) -> None:
    content = io.BytesIO()
    Image.fromarray(PICTURE).save(content, "PNG")
    await _refused_page_of(content.getvalue(), folder, models, **limits)


async def _refused_page_of(
    content: bytes, folder: Path, models: ServingModels, *, processes: PdfProcesses | None = None, **limits: float
) -> None:
    """Pages are refused one by one: each is told to the counter when it is refused, rather than by the error in the end."""
    refused: list[str] = []
    nowhere, limited = Storage(read_roots=(), write_roots=()), replace(DocumentLimits(), **limits)
    reader = DocumentReader(models, nowhere, folder, limits=limited, refused=refused.append, processes=processes)
    with pytest.raises(InferenceError) as caught:
        async for _ in reader.read(DocumentRequest(content=content), ANYBODY):
            pass
    assert caught.value.limit == ""
    raise InferenceError("as counted", limit=refused[0])


@passing("pdf_memory_bytes")
async def _pdf_memory_bytes(folder: Path, models: ServingModels) -> None:
    await _refused_page_of(BOMBS["deflate"](), folder, models, processes=PdfProcesses(most_bytes=2**27))


@passing("page_pixels")
async def _page_pixels(folder: Path, models: ServingModels) -> None:
    await _refused_page(folder, models, most_page_pixels=9)


@passing("page_seconds")
async def _page_seconds(folder: Path, models: ServingModels) -> None:
    await _refused_page(folder, models, most_page_seconds=0.0)


@passing("document_seconds")
async def _document_seconds(folder: Path, models: ServingModels) -> None:
    # Used up before it was opened: the request ends. One that is used up later ends its pages (test_reader).
    content = io.BytesIO()
    Image.fromarray(PICTURE).save(content, "PNG")
    await _read(folder, models, DocumentRequest(content=content.getvalue()), most_document_seconds=0.0)


@passing("lab_tests")
async def _lab_tests(folder: Path, models: ServingModels) -> None:
    await LabClassifier(models, folder, limits=LabLimits(most_items=2)).embed(["a", "b", "c"], caller=ANYBODY)


@passing("lab_characters")
async def _lab_characters(folder: Path, models: ServingModels) -> None:
    classifier = LabClassifier(models, folder, limits=LabLimits(most_characters=9))
    with pytest.raises(InferenceError) as of_a_query:
        await classifier.search("x" * 10, limit=1, caller=ANYBODY)
    assert of_a_query.value.limit == "lab_characters"
    await classifier.classify([PrintedTest(name="x" * 10)], top=1, caller=ANYBODY)


@passing("candidates")
async def _candidates(folder: Path, models: ServingModels) -> None:
    await LabClassifier(models, folder, limits=LabLimits(most_candidates=9)).search("glucose", limit=10, caller=ANYBODY)


@passing("shared_memory_regions")
async def _shared_memory_regions(folder: Path, models: ServingModels) -> None:
    key = f"lamina-limits-{uuid.uuid4().hex}"
    made = shared_memory.SharedMemory(key, create=True, size=64)
    memory = SharedMemory(("lamina-limits-",), most_regions=1)
    try:
        memory.register("a", f"/{key}", offset=0, size=1)
        memory.register("b", f"/{key}", offset=0, size=1)
    finally:
        memory.unregister()
        made.close()
        made.unlink()


@passing("text_characters")
async def _text_characters(folder: Path, models: ServingModels) -> None:
    await LabClassifier(models, folder, limits=LabLimits(most_embedded_characters=9)).embed(["x" * 10], caller=ANYBODY)


def test_every_limit_that_can_be_set_is_tested_here() -> None:
    assert set(Settings.load().limits()) - WAITING == set(CASES)


def documented() -> dict[str, list[str]]:
    """The table of limits in docs/serving.md, by their names; each row without its name."""
    rows = re.findall(r"^\| `INFERENCE_MAX_([A-Z_]+)` \| (.+) \|$", SERVING.read_text(encoding="utf-8"), re.MULTILINE)
    return {name.lower(): [cell.strip() for cell in row.split(" | ")] for name, row in rows}


def test_every_limit_is_documented() -> None:
    assert set(documented()) == set(Settings.load().limits())
    waiting = {name for name, (_, _, status) in documented().items() if status == "waits"}
    assert waiting == WAITING


async def test_every_limit_has_its_metrics_from_the_start(models: ServingModels, tmp_path: Path) -> None:
    async with running_application(tmp_path / "models", tmp_path, max_tensors=7) as application:
        text = await asyncio.to_thread(_get, f"http://{application.http.address}/metrics")
    told = dict(re.findall(r'^lamina_limit\{limit="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert {name: float(value) for name, value in told.items()} == {**Settings.load().limits(), "tensors": 7}
    counted = dict(re.findall(r'^lamina_limit_refusals_total\{limit="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert counted == dict.fromkeys(Settings.load().limits(), "0.0")


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize("limit", sorted(CASES))
async def test_what_passes_a_limit_is_refused_and_names_it(limit: str, tmp_path: Path, models: ServingModels) -> None:
    with pytest.raises(InferenceError) as caught:
        await CASES[limit](tmp_path, models)
    assert caught.value.limit == limit
    # These end a page, and a connection, and no request.
    if limit not in {"page_pixels", "page_seconds", "pdf_memory_bytes", "document_seconds", "connections"}:
        assert status_of(caught.value).name == documented()[limit][-1]


async def test_a_stream_that_is_kept_waiting_is_counted() -> None:
    waits: list[str] = []
    go = asyncio.Event()

    async def requests() -> Any:
        for number in range(3):
            yield replace(parse_request(b""), size=number)

    async def infer(request: Any) -> Any:
        await go.wait()
        raise InferenceError("as it may be")

    def waited(limit: str) -> None:
        waits.append(limit)
        go.set()

    stream = InferStream(infer, lifecycle=Lifecycle(), bytes_in_flight=BytesInFlight(most=10), most_requests=2, waits=waited)
    assert len([answer async for answer in stream.responses(requests())]) == 3
    assert set(waits) == {"stream_requests"}


async def test_what_a_request_of_a_stream_passes_is_told_and_the_stream_goes_on() -> None:
    refused: list[str] = []
    bytes_in_flight = BytesInFlight(most=10)
    bytes_in_flight.try_hold(10)

    async def requests() -> Any:
        yield replace(parse_request(b""), size=1)

    async def infer(request: Any) -> Any:
        raise AssertionError("not admitted")

    stream = InferStream(infer, lifecycle=Lifecycle(), bytes_in_flight=bytes_in_flight, most_requests=1, refused=refused.append)
    answers = [answer.error async for answer in stream.responses(requests())]
    assert (refused, ["too many bytes" in error for error in answers]) == (["bytes_in_flight"], [True])


def test_refusals_are_counted_by_limit() -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry, "1")
    for limit in ("tensors", "tensors", "calls"):
        metrics.limit_refused(limit)
    assert [registry.get_sample_value("lamina_limit_refusals_total", {"limit": limit}) for limit in ("tensors", "calls")] == [2, 1]
