"""A server in which a PDF holds pdfium for ever: it goes on, tells so, and ends when it is told to."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from lamina.v1 import documents_pb2, documents_pb2_grpc

from tests.support.endless_pdf import endless_pdf
from tests.support.pdf import Text, pdf
from tests.support.server_process import ServerProcess, running_server
from tests.support.small_models import write_small_repository

_FLAGS = ("--engine", "onnxruntime", "--grace-seconds", "0", "--drain-seconds", "1")


@contextmanager
def _held(folder: Path) -> Iterator[tuple[ServerProcess, documents_pb2_grpc.DocumentServiceStub]]:
    """A server whose pdfium is held by a call that goes on."""
    write_small_repository(folder / "models")
    with running_server(folder / "models", folder, *_FLAGS) as server, grpc.insecure_channel(server.grpc) as channel:
        server.wait_for("ready")
        stub = documents_pb2_grpc.DocumentServiceStub(channel)
        endless = stub.RecognizeDocument(documents_pb2.RecognizeDocumentRequest(content=endless_pdf()), timeout=600)
        while _status(stub, _short(), seconds=2) is grpc.StatusCode.OK:
            pass
        yield server, stub
        endless.cancel()


def _status(stub: documents_pb2_grpc.DocumentServiceStub, content: bytes, *, seconds: float) -> grpc.StatusCode:
    request = documents_pb2.RecognizeDocumentRequest(content=content, text_mode=documents_pb2.TEXT_MODE_LAYER)
    call = stub.RecognizeDocument(request, timeout=seconds)
    with suppress(grpc.RpcError):
        list(call)
    return call.code()


def _short() -> bytes:
    return pdf([[Text(text="Glukosa Puasa", x=40, y=60)]])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_whose_pdfium_is_held_ends_in_time(tmp_path: Path, number: signal.Signals) -> None:
    with _held(tmp_path) as (server, _):
        started = time.monotonic()
        server.signal(number)
        assert (server.wait(seconds=60), server.has_left_nothing()) == (0, True)
        # A second of draining, two for what is cancelled then, and two for what may end still.
        assert time.monotonic() - started < 15
        server.wait_for("stopped")


def test_documents_that_wait_in_vain_leave_no_memory_behind(tmp_path: Path) -> None:
    large = _short() + b"%" + bytes(20_000_000)
    with _held(tmp_path) as (server, stub):
        for _ in range(25):
            assert _status(stub, large, seconds=1) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert _resident(server) < 450_000_000
        told = server.wait_for("pdfium_held", seconds=60)
        assert told["seconds"] >= 30


def _resident(server: ServerProcess) -> int:
    """Bytes of memory that it has."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024
