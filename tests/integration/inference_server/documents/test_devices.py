"""Documents read on one kind of device alone, over gRPC: the bridge's readers, the built-in models, and a GPU that fails or hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from lamina.v1 import documents_pb2_grpc
from prometheus_client import CollectorRegistry

from bridge.inference.client import InferenceClient
from bridge.systems.cards.options import CardOptions
from bridge.systems.cards.reading.readers import CardReaders, told_of_reader
from bridge.systems.cards.reading.tesseract import Tesseract
from inference_server.engine.failures import failure_on_device
from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader
from inference_server.engine.runtimes import Runtimes
from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import DeadlineExceeded, InvalidDocument
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.port import Caller, Device
from inference_server.service.documents import DocumentServicer
from inference_server.service.interceptors import CallInterceptor
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.metrics.calls import CallMetrics
from inference_server.service.server import GrpcServer, Service
from inference_server.storage.storage import Storage
from inference_server.tasks.documents.reader import DocumentReader, DocumentRequest
from inference_server.tasks.documents.values import Limits, PageResult
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import image_file, images_of
from tests.support.gpu.pretended_gpu import PretendedGpu
from tests.support.inference_server.serving import serving
from tests.support.patience import until

CARD = image_file(images_of(pdf(((Text(text="Nama : BUDI", x=20, y=40),),), size=(200, 80)))[0], "PNG")
NOWHERE = Storage(read_roots=(), write_roots=())


@pytest.fixture
def gpu() -> PretendedGpu:
    return PretendedGpu()


@asynccontextmanager
async def serving_documents(models: Path, engines: Mapping[str, EngineSelector]) -> AsyncIterator[str]:
    """The address of a server with these devices, whose CPU may stand in for a GPU."""
    lifecycle = Lifecycle()
    metrics = CallMetrics(CollectorRegistry(), "test")
    interceptor = CallInterceptor(lifecycle=lifecycle, bytes_in_flight=BytesInFlight(most=2**28), metrics=metrics)
    async with serving(models, engines, options=SchedulingOptions(cpu_fallback=True)) as inference:
        servicer = DocumentServicer(DocumentReader(inference, NOWHERE, models))
        add_to = partial(documents_pb2_grpc.add_DocumentServiceServicer_to_server, servicer)
        service = Service(name="lamina.v1.DocumentService", add_to=add_to)
        server = GrpcServer(address="127.0.0.1:0", services=[service], lifecycle=lifecycle, intercept=interceptor.wrap)
        await server.start()
        yield server.address
        await server.stop(grace_seconds=0, drain_seconds=0, hurry=asyncio.Event())


async def read(address: str, *, gpu_seconds: float = 300.0) -> dict[str, Any]:
    """A document as the card worker has it read: its text, and what a result tells of its reader."""
    context = cast("Any", SimpleNamespace(claim=SimpleNamespace(attempts=0), report=lambda *_: None))
    job = cast("Any", SimpleNamespace(key="job-1", priority=0))
    async with InferenceClient(address) as client:
        readers = CardReaders(client, Tesseract(program="no-such-program"), CardOptions(has_gpu=True, gpu_seconds=gpu_seconds))
        saved = await readers.read("KTP", CARD, job, context)
    return {"text": saved["text"], **told_of_reader(saved, has_gpu=True)}


async def test_a_document_is_read_by_the_gpu_and_by_the_cpu_while_that_fails_or_hangs(text_models: Path, gpu: PretendedGpu) -> None:
    async with serving_documents(text_models, {"cuda:0": gpu.selector()}) as address:
        told = await read(address)
        assert ("Nama : BUDI", True, None) == (told["text"], told["gpuProcessed"], told.get("fallbackReason"))
        gpu.failure = failure_on_device("it failed", "CUDA failure 2: out of memory ; GPU=0 ; hostname=host-7")
        told = await read(address)
        assert ("Nama : BUDI", False) == (told["text"], told["gpuProcessed"])
        assert told["fallbackReason"].endswith("@onnxruntime:float32): the GPU failed: out of memory")
        gpu.failure = None
        with gpu.hanging():
            # Neither the GPU nor this time ends the other: it never answers, and the CPU has as long as it needs.
            told = await read(address, gpu_seconds=0.5)
        assert "Nama : BUDI" == told["text"]
        assert told["fallbackReason"].endswith("@onnxruntime:float32): the GPU did not answer within 0.5 s")
        assert (await read(address))["gpuProcessed"], "it is asked again, and reads again"


async def test_documents_that_a_gpu_keeps_waiting_hold_up_none_that_the_cpu_alone_may_read(text_models: Path, gpu: PretendedGpu) -> None:
    async with serving(text_models, {"cuda:0": gpu.selector()}, options=SchedulingOptions(cpu_fallback=True)) as inference:
        reader = DocumentReader(inference, NOWHERE, text_models, most_pages_at_once=1)

        async def read_on(device: Device) -> str:
            events = [event async for event in reader.read(DocumentRequest(content=CARD), Caller(device=device))]
            return events[0].text if isinstance(events[0], PageResult) else ""

        with gpu.hanging():
            held = [asyncio.create_task(read_on(Device.GPU)) for _ in range(2)]
            await until(lambda: gpu.waiting == 1)
            assert "Nama : BUDI" == await read_on(Device.CPU)
            assert not any(task.done() for task in held)
        assert ["Nama : BUDI"] * 2 == await asyncio.gather(*held)


async def test_a_server_without_a_gpu_says_so_and_reads_on_its_cpu(text_models: Path) -> None:
    cpu = OnnxRuntimeLoader(threads=1)
    selector = EngineSelector(Runtimes(device="cpu", reference=cpu, candidates=(cpu,), machine={"cpu": "test"}))
    async with serving_documents(text_models, {"cpu": selector}) as address:
        told = await read(address)
    assert ("Nama : BUDI", False) == (told["text"], told["gpuProcessed"])
    assert told["fallbackReason"].endswith(": no GPU engine for model ppocrv6_small_det: this server runs it on its CPU")


@pytest.mark.parametrize("device", list(Device))
async def test_a_page_that_takes_a_device_too_long_fails_the_call_so_that_it_or_another_is_asked_again(
    text_models: Path, gpu: PretendedGpu, device: Device
) -> None:
    """Of callers who leave the device to the server it costs the page alone, and the document where that has no other."""
    slow = {"cuda:0": gpu.selector()} if device is Device.GPU else {"cpu": gpu.selector(device="cpu")}
    async with serving(text_models, slow) as inference:
        reader = DocumentReader(inference, NOWHERE, text_models, limits=Limits(most_page_seconds=0.5))

        async def read_on(device: Device | None) -> None:
            [event async for event in reader.read(DocumentRequest(content=CARD), Caller(device=device))]

        with gpu.hanging():
            with pytest.raises(DeadlineExceeded, match=r"page 1 was not read within 0.5 s"):
                await read_on(device)
            with pytest.raises(InvalidDocument, match=r"page 1 was not read within 0.5 s"):
                await read_on(None)
