"""What an operator sets of the transport, seen by clients of the real program and in its metrics."""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http2 import END_HEADERS, GOAWAY, HEADERS, PING, RawPeer, block, call, frame, head, until_true
from tests.support.server_process import ServerProcess, running_server
from tests.support.small_models import sum_and_difference, write_model

METADATA = "/inference.GRPCInferenceService/ServerMetadata"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "sum_and_difference", sum_and_difference(), "max_batch_size: 8\n")
    return folder


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    flags = ("--engine", "onnxruntime", "--response-compression", "gzip", "--receive-seconds", "1.5", "--max-connections", "3")
    with running_server(models, tmp_path, *flags, "--connection-idle-seconds", "2") as running:
        running.wait_for("ready")
        yield running


def _port(server: ServerProcess) -> int:
    return int(server.grpc.rpartition(":")[2])


def _metric(server: ServerProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=60) as response:
        found = re.search(rf"^{re.escape(name)} (\S+)$", response.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_what_is_set_of_connections_holds_and_is_counted(server: ServerProcess) -> None:
    closed = 'lamina_connections_closed_total{reason="%s"}'
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", _port(server)))) for _ in range(3)]
        with RawPeer(_port(server), greet=False) as refused:
            assert refused.end() is None
        assert _metric(server, "lamina_connections") == len(waiting)
        assert _metric(server, 'lamina_limit_refusals_total{limit="connections"}') == 1
        until_true(lambda: _metric(server, closed % "slow_request") == 3)
        assert _metric(server, closed % "slow_request") == 3
    with RawPeer(_port(server)) as idle:
        assert idle.next(GOAWAY).error_code == 0
        idle.send(frame(PING, 1, 0, idle.next(PING).opaque_data))
        idle.end()
    until_true(lambda: _metric(server, closed % "idle") == 1)
    assert (_metric(server, closed % "idle"), _metric(server, "lamina_connections")) == (1, 0)


def test_answers_are_compressed_for_clients_that_read_it(server: ServerProcess) -> None:
    with RawPeer(_port(server)) as peer:
        peer.send(call(1, b"", path=METADATA, grpc_accept_encoding="gzip") + call(3, b"", path=METADATA))
        compressed, plain = peer.answer(1), peer.answer(3)
        assert (compressed.status, compressed.headers["grpc-encoding"]) == (0, "gzip")
        assert (plain.status, plain.headers.get("grpc-encoding")) == (0, None)


def test_a_request_that_does_not_come_is_not_waited_for(server: ServerProcess) -> None:
    with RawPeer(_port(server)) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, block(head(METADATA))))
        assert peer.answer(1).status == 4
