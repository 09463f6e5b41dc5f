"""A server with a PDF that holds pdfium for ever: it goes on, other PDFs too, and it ends when it is told to."""

from __future__ import annotations

import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from lamina.v1 import documents_pb2, documents_pb2_grpc

from tests.support.child_processes import children_of, resident_bytes
from tests.support.documents.endless_pdf import endless_pdf
from tests.support.documents.pdf import Text, pdf
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.models.small_models import write_small_repository

_FLAGS = ("--engine", "onnxruntime", "--grace-seconds", "0", "--drain-seconds", "1", "--pdf-processes", "2")


@contextmanager
def _held(folder: Path) -> Iterator[tuple[ServerProcess, documents_pb2_grpc.DocumentServiceStub]]:
    """A server with a process that is held by a call that goes on."""
    write_small_repository(folder / "models")
    with running_server(folder / "models", folder, *_FLAGS) as server, grpc.insecure_channel(server.grpc) as channel:
        server.wait_for("ready")
        stub = documents_pb2_grpc.DocumentServiceStub(channel)
        endless = stub.RecognizeDocument(documents_pb2.RecognizeDocumentRequest(content=endless_pdf()), timeout=600)
        server.wait_for("pdf_set_aside", seconds=60)
        yield server, stub
        endless.cancel()


def _status(stub: documents_pb2_grpc.DocumentServiceStub, content: bytes, *, seconds: float, **request: int) -> grpc.StatusCode:
    call = stub.RecognizeDocument(documents_pb2.RecognizeDocumentRequest(content=content, **request), timeout=seconds)
    with suppress(grpc.RpcError):
        list(call)
    return call.code()


def _is_read(stub: documents_pb2_grpc.DocumentServiceStub) -> bool:
    content = pdf([[Text(text="Glukosa Puasa", x=40, y=60)]])
    return _status(stub, content, seconds=60, text_mode=documents_pb2.TEXT_MODE_LAYER) is grpc.StatusCode.OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_whose_pdfium_is_held_ends_in_time_and_its_processes_too(tmp_path: Path, number: signal.Signals) -> None:
    with _held(tmp_path) as (server, stub):
        assert _is_read(stub)
        processes = children_of(server.process.pid)
        assert processes
        started = time.monotonic()
        server.signal(number)
        assert (server.wait(seconds=60), server.has_left_nothing()) == (0, True)
        # A second of draining, and two for what is cancelled then.
        assert time.monotonic() - started < 15
        server.wait_for("stopped")
        assert not any(map(_lives, processes))


def test_processes_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with _held(tmp_path) as (server, _):
        processes = children_of(server.process.pid)
        assert processes
        server.signal(signal.SIGKILL)
        server.wait(seconds=60)
        deadline = time.monotonic() + 60
        while any(map(_lives, processes)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_documents_whose_callers_go_away_leave_neither_memory_nor_processes_behind(tmp_path: Path) -> None:
    large = endless_pdf() + b"%" + bytes(20_000_000)
    with _held(tmp_path) as (server, stub):
        for _ in range(10):
            assert _status(stub, large, seconds=1) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert _is_read(stub)
        assert resident_bytes(server.process.pid) < 450_000_000
        # As many again as are set at the most: those that are held.
        assert len(children_of(server.process.pid)) <= 4
        with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=60) as answer:
            told = answer.read().decode()
    assert 'lamina_pdf_process_ends_total{reason="given_up"}' in told
    assert "\nlamina_pdf_processes " in told


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
