"""Who reads a card when others fail, hang or refuse, and within which time: a real gRPC server in the inference server's place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from lamina.v1 import documents_pb2
from structlog.testing import capture_logs

from bridge.breaker import Breaker
from bridge.errors import OverloadError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.policies import RetryPolicy
from bridge.job import Job
from bridge.systems.cards.options import CardOptions
from bridge.systems.cards.reading.readers import CardReaders, told_of_reader
from bridge.systems.cards.reading.tesseract import Tesseract
from bridge.systems.port import Context
from tests.support.bridge.scripted_server import Behaviour, ScriptedServer, answer, hang, refuse
from tests.support.moved_clock import MovedClock, moved_clock

CARD = b"\x89PNG\r\n\x1a\nand so on"
GPU, CPU, EITHER = documents_pb2.DEVICE_GPU, documents_pb2.DEVICE_CPU, documents_pb2.DEVICE_UNSPECIFIED
OUT_OF_MEMORY = refuse(
    grpc.StatusCode.INTERNAL,
    "failed to run: CUDA failure 2: out of memory ; hostname=gpu-7 ; file=/src/cuda_call.cc",
    trailing=(("lamina-device-cause", "out_of_memory"),),
)
NO_ENGINE = refuse(
    grpc.StatusCode.FAILED_PRECONDITION,
    "no GPU engine for model rec: this server runs it on its CPU",
    trailing=(("lamina-device-cause", "no_engine"),),
)


def reads(engine: str) -> Behaviour:
    page = documents_pb2.DocumentPage(page_number=1, page_count=1, width=100, height=200, text="Nama : ANI")
    summary = documents_pb2.DocumentSummary(page_count=1, media_type="image/png", models=[f"rec:1@{engine}:float32"])
    return answer(documents_pb2.RecognizeDocumentResponse(page=page), documents_pb2.RecognizeDocumentResponse(summary=summary))


def later(clock: MovedClock, seconds: float, behaviour: Behaviour) -> Behaviour:
    """What a server does after so many seconds."""

    async def behave(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        clock.sleep(seconds)
        # What is due by then is done first.
        await asyncio.sleep(0.001)
        async for message in behaviour(request, context):
            yield message

    return behave


def tesseract(folder: Path, text: str = "Nama : BUDI", *, status: int = 0) -> Tesseract:
    program = folder / "tesseract"
    listed = 'printf "ind\\neng\\nosd\\n"'
    program.write_text(f'#!/bin/sh\n[ "$1" = --list-langs ] && {listed} && exit 0\ncat > /dev/null; printf "{text}\\n"; exit {status}\n')
    program.chmod(0o755)
    return Tesseract(program=str(program))


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    return moved_clock(monkeypatch)


async def read(
    server: ScriptedServer,
    *script: Behaviour,
    by: Tesseract | None = None,
    attempts: int = 0,
    hanging: Breaker | None = None,
    report: Callable[..., None] = lambda *_: None,
    **options: Any,
) -> dict[str, Any]:
    """What becomes of a document: what a result tells of its reader, and its text."""
    server.script = list(script)
    chosen = CardOptions(**{"has_gpu": True, **options})
    context = cast("Context", SimpleNamespace(claim=SimpleNamespace(attempts=attempts), report=report))
    job = cast("Job", SimpleNamespace(key="job-1", priority=0))
    async with InferenceClient(server.address, retries=RetryPolicy(attempts=1)) as client:
        readers = CardReaders(client, by or Tesseract(program="no-such-program"), chosen, hanging=hanging)
        saved = await readers.read("KTP", CARD, job, context)
    return {**told_of_reader(saved, has_gpu=chosen.has_gpu), "text": saved["text"], "fell_back_to": saved.get("fell_back_to", "")}


def asked(server: ScriptedServer) -> list[int]:
    return [request.device for request in server.requests]


async def test_the_gpu_reads_where_it_can(server: ScriptedServer) -> None:
    told = await read(server, reads("tensorrt"))
    models = ["rec:1@tensorrt:float32"]
    assert {"gpuProcessed": True, "engine": "server", "models": models, "text": "Nama : ANI", "fell_back_to": ""} == told
    assert [GPU] == asked(server)


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (OUT_OF_MEMORY, "the GPU failed: out of memory"),
        (
            refuse(grpc.StatusCode.INTERNAL, "lost", trailing=(("lamina-device-cause", "device_lost"),)),
            "the GPU failed: the device was lost",
        ),
        (NO_ENGINE, "no GPU engine for model rec: this server runs it on its CPU"),
        (
            refuse(grpc.StatusCode.INTERNAL, "tensorrt failed to run the model: Conv_7 in /opt/models/rec/1: 3\nand more"),
            "the GPU failed: tensorrt failed to run the model: Conv_7 in … 3",
        ),
        (
            refuse(grpc.StatusCode.DEADLINE_EXCEEDED, "page 1 was not read within 120 s."),
            "the GPU failed: page 1 was not read within 120 s. [DEADLINE_EXCEEDED]",
        ),
    ],
)
async def test_what_the_gpu_does_not_read_the_cpu_does_and_the_result_tells_the_gpus_own_cause(
    server: ScriptedServer, fails: Behaviour, why: str
) -> None:
    told = await read(server, fails, reads("onnxruntime"))
    assert (False, "server", "cpu", "Nama : ANI") == tuple(told[key] for key in ("gpuProcessed", "engine", "fell_back_to", "text"))
    assert f"the inference server read it on its CPU (rec:1@onnxruntime:float32): {why}" == told["fallbackReason"]
    assert [GPU, CPU] == asked(server)


async def test_the_gpu_has_no_more_than_its_own_time(server: ScriptedServer, clock: MovedClock) -> None:
    assert (await read(server, later(clock, 200, reads("tensorrt")), gpu_seconds=300.0))["gpuProcessed"]
    told = await read(server, later(clock, 61, hang()), reads("onnxruntime"))
    why = "the GPU did not answer within 60 s"
    assert f"the inference server read it on its CPU (rec:1@onnxruntime:float32): {why}" == told["fallbackReason"]
    assert [GPU, GPU, CPU] == asked(server)


async def test_the_cpu_has_its_whole_time_after_the_gpu_has_used_up_its_own(server: ScriptedServer, clock: MovedClock) -> None:
    told = await read(server, later(clock, 61, hang()), later(clock, 241, reads("onnxruntime")))
    assert "the GPU did not answer within 60 s" in told["fallbackReason"]
    with pytest.raises(TransientError, match=r"^the GPU did not answer within 60 s; the CPU did not answer within 100 s$"):
        await read(server, later(clock, 61, hang()), later(clock, 101, hang()), cpu_seconds=100.0)


async def test_a_gpu_that_hangs_is_left_alone_but_for_one_document_at_a_time(server: ScriptedServer, clock: MovedClock) -> None:
    hanging = Breaker(name="the GPU", failures=3, seconds=120.0, clock=clock.monotonic)
    late, by_cpu = later(clock, 61, hang()), reads("onnxruntime")
    for _ in range(3):
        await read(server, late, by_cpu, hanging=hanging)
    told = await read(server, by_cpu, hanging=hanging)
    assert "the GPU has failed 3 times in a row; it is asked again in " in told["fallbackReason"]
    assert [*[GPU, CPU] * 3, CPU] == asked(server)

    server.requests.clear()
    clock.sleep(121)
    await read(server, late, by_cpu, hanging=hanging)
    await read(server, by_cpu, hanging=hanging)
    clock.sleep(121)
    assert (await read(server, reads("tensorrt"), hanging=hanging))["gpuProcessed"]
    assert (await read(server, reads("tensorrt"), hanging=hanging))["gpuProcessed"]
    assert [GPU, CPU, CPU, GPU, GPU] == asked(server)


async def test_a_document_that_is_too_long_for_a_gpu_that_reads_tells_nothing_of_the_next(
    server: ScriptedServer, clock: MovedClock
) -> None:
    hanging, came = Breaker(name="the GPU", failures=1, seconds=120.0), asyncio.Event()

    async def long(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        page = documents_pb2.DocumentPage(page_number=1, page_count=90, width=100, height=200, text="Nama : ANI")
        yield documents_pb2.RecognizeDocumentResponse(page=page)
        await came.wait()
        async for message in later(clock, 61, hang())(request, context):
            yield message

    for _ in range(2):
        came.clear()
        told = await read(server, long, reads("onnxruntime"), hanging=hanging, report=lambda *_: came.set())
        assert "did not answer within 60 s" in told["fallbackReason"]
    assert [GPU, CPU] * 2 == asked(server)


async def test_a_gpu_that_fails_at_once_is_asked_each_time(server: ScriptedServer) -> None:
    hanging = Breaker(name="the GPU", failures=1, seconds=120.0)
    for _ in range(3):
        await read(server, OUT_OF_MEMORY, reads("onnxruntime"), hanging=hanging)
    assert [GPU, CPU] * 3 == asked(server)


async def test_what_neither_device_reads_in_the_last_try_tesseract_does(server: ScriptedServer, clock: MovedClock, tmp_path: Path) -> None:
    script = (later(clock, 61, hang()), later(clock, 101, hang()))
    why = "the GPU did not answer within 60 s; the CPU did not answer within 100 s"
    with pytest.raises(TransientError, match=why):
        await read(server, *script, by=tesseract(tmp_path), attempts=1, cpu_seconds=100.0)
    told = await read(server, *script, by=tesseract(tmp_path), attempts=2, cpu_seconds=100.0)
    assert ("Nama : BUDI\n", "tesseract", False, []) == tuple(told[key] for key in ("text", "engine", "gpuProcessed", "models"))
    assert why == told["fallbackReason"]


async def test_without_leave_to_fall_back_the_gpu_alone_is_asked(server: ScriptedServer, clock: MovedClock, tmp_path: Path) -> None:
    hanging = Breaker(name="the GPU", failures=1, seconds=120.0)
    for fails, why in ((later(clock, 61, hang()), "^the GPU did not answer within 60 s$"), (OUT_OF_MEMORY, "out of memory")):
        with pytest.raises(TransientError, match=why):
            await read(server, fails, falls_back=False, by=tesseract(tmp_path), attempts=2, hanging=hanging)
    assert [GPU, GPU] == asked(server)


@pytest.mark.parametrize("cause", ["no_engine", "engine_not_built"])
async def test_without_leave_to_fall_back_documents_wait_for_a_gpu_that_is_not_there(
    server: ScriptedServer, tmp_path: Path, cause: str
) -> None:
    missing = refuse(grpc.StatusCode.FAILED_PRECONDITION, "no GPU engine for model rec", trailing=(("lamina-device-cause", cause),))
    with capture_logs() as logged, pytest.raises(OverloadError, match=r"no engine is built|no GPU engine") as told:
        await read(server, missing, falls_back=False, by=tesseract(tmp_path), attempts=2)
    assert 15 == told.value.retry_after
    assert [("no_gpu", str(told.value))] == [(each["event"], each["reason"]) for each in logged if each["log_level"] == "error"]


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("rec failed in /opt/models/rec/1/model.onnx: 3", "rec failed in … 3"),
        ("it failed ; hostname=gpu-7 ; file=/src/cuda_call.cc", "it failed ; … ; …"),
        ("nobody answers at gpu-7:8001, nor at 10.0.0.7", "nobody answers at …, nor at …"),
    ],
)
async def test_no_reason_that_is_kept_names_a_place_on_a_machine(server: ScriptedServer, tmp_path: Path, says: str, told: str) -> None:
    by = tesseract(tmp_path)
    failed = await read(server, refuse(grpc.StatusCode.INTERNAL, says), by=by, attempts=2, has_gpu=False)
    assert f"{told} [INTERNAL]" == failed["fallbackReason"]
    refused = await read(server, OUT_OF_MEMORY, refuse(grpc.StatusCode.INVALID_ARGUMENT, says), by=by)
    assert f"the GPU failed: out of memory; on the CPU: {told} [INVALID_ARGUMENT]" == refused["fallbackReason"]
    with pytest.raises(PermanentError) as raised:
        await read(server, refuse(grpc.StatusCode.INTERNAL, says), by=tesseract(tmp_path, status=1), attempts=2, has_gpu=False)
    assert str(raised.value).startswith(f"{told} [INTERNAL]; nor was it read")
    with pytest.raises(TransientError) as again:
        await read(server, refuse(grpc.StatusCode.INTERNAL, says), has_gpu=False)
    assert f"{told} [INTERNAL]" == str(again.value)


async def test_a_document_that_is_at_fault_itself_is_not_read_again_by_the_cpu(server: ScriptedServer, tmp_path: Path) -> None:
    broken = refuse(grpc.StatusCode.INVALID_ARGUMENT, "the document is broken")
    with pytest.raises(PermanentError, match=r"^the document is broken \[INVALID_ARGUMENT\]$"):
        await read(server, broken)
    assert "tesseract" == (await read(server, broken, by=tesseract(tmp_path)))["engine"]
    assert [GPU, GPU] == asked(server)


async def test_a_server_that_is_full_or_gone_after_its_gpu_has_failed_makes_the_document_wait(
    server: ScriptedServer, tmp_path: Path
) -> None:
    for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        with pytest.raises(OverloadError):
            await read(server, OUT_OF_MEMORY, refuse(code), by=tesseract(tmp_path), attempts=2)


async def test_what_the_cpu_came_to_after_the_gpu_is_told_too(server: ScriptedServer) -> None:
    none_allowed = refuse(
        grpc.StatusCode.FAILED_PRECONDITION,
        "no CPU engine for model rec: INFERENCE_FALLBACK is none",
        trailing=(("lamina-device-cause", "no_engine"),),
    )
    with pytest.raises(TransientError, match=r"^the GPU failed: out of memory; no CPU engine for model rec: INFERENCE_FALLBACK is none$"):
        await read(server, OUT_OF_MEMORY, none_allowed)
    with pytest.raises(TransientError, match=r"^the GPU failed: out of memory; the CPU failed: it failed at … \[INTERNAL\]$"):
        await read(server, OUT_OF_MEMORY, refuse(grpc.StatusCode.INTERNAL, "it failed at /src/conv.cc"))
    with pytest.raises(PermanentError, match=r"^the GPU failed: out of memory; on the CPU: page 1 is late \[INVALID_ARGUMENT\]$"):
        await read(server, OUT_OF_MEMORY, refuse(grpc.StatusCode.INVALID_ARGUMENT, "page 1 is late"))


async def test_where_no_gpu_is_to_be_there_the_server_reads_with_what_it_has(server: ScriptedServer, clock: MovedClock) -> None:
    told = await read(server, reads("onnxruntime"), has_gpu=False)
    assert (False, None) == (told["gpuProcessed"], told.get("fallbackReason"))
    with pytest.raises(TransientError, match=r"^the inference server did not answer within 100 s$"):
        await read(server, later(clock, 101, hang()), has_gpu=False, cpu_seconds=100.0)
    assert [EITHER, EITHER] == asked(server)
