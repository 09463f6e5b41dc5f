"""What an operator sets of the transport, seen by clients of the real program and in its metrics."""

from __future__ import annotations

import contextlib
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.inference_server.http2 import END_HEADERS, GOAWAY, HEADERS, PING, SETTINGS, RawPeer, block, call, frame, head
from tests.support.inference_server.http2_transport import until_true
from tests.support.inference_server.server_process import ServerProcess, running_server
from tests.support.models.small_models import sum_and_difference, write_model

METADATA = "/inference.GRPCInferenceService/ServerMetadata"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, "sum_and_difference", sum_and_difference(), "max_batch_size: 8\n")
    return folder


@pytest.fixture
def server(models: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """With what its test sets, and no more: what is short here is what a pause of the machine must not cut short there."""
    with running_server(models, tmp_path, "--engine", "onnxruntime", *request.param) as running:
        running.wait_for("ready")
        yield running


def _port(server: ServerProcess) -> int:
    return int(server.grpc.rpartition(":")[2])


def _metric(server: ServerProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=60) as response:
        found = re.search(rf"^{re.escape(name)} (\S+)$", response.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


CLOSED = 'lamina_connections_closed_total{reason="%s"}'


@pytest.mark.parametrize("server", [("--max-connections", "3")], indirect=True)
def test_more_connections_than_are_set_are_refused_and_counted(server: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(RawPeer(_port(server))) for _ in range(3)]
        for peer in held:
            assert peer.next(SETTINGS)
        with RawPeer(_port(server), greet=False) as refused:
            assert refused.end() is None
        assert _metric(server, "lamina_connections") == len(held)
        assert _metric(server, 'lamina_limit_refusals_total{limit="connections"}') == 1


@pytest.mark.parametrize("server", [("--receive-seconds", "6", "--connection-idle-seconds", "2")], indirect=True)
def test_connections_that_send_nothing_or_have_nothing_to_do_are_closed_and_counted(server: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", _port(server))))
        until_true(lambda: _metric(server, CLOSED % "slow_request") == 3)
        assert _metric(server, CLOSED % "slow_request") == 3
    with RawPeer(_port(server)) as idle:
        assert idle.next(GOAWAY).error_code == 0
        with contextlib.suppress(OSError):  # whoever has paused for too long is not waited for
            idle.send(frame(PING, 1, 0, idle.next(PING).opaque_data))
        idle.end()
    until_true(lambda: _metric(server, CLOSED % "idle") == 1)
    assert (_metric(server, CLOSED % "idle"), _metric(server, "lamina_connections")) == (1, 0)


@pytest.mark.parametrize("server", [("--response-compression", "gzip")], indirect=True)
def test_answers_are_compressed_for_clients_that_read_it(server: ServerProcess) -> None:
    with RawPeer(_port(server)) as peer:
        peer.send(call(1, b"", path=METADATA, grpc_accept_encoding="gzip") + call(3, b"", path=METADATA))
        compressed, plain = peer.answer(1), peer.answer(3)
        assert (compressed.status, compressed.headers["grpc-encoding"]) == (0, "gzip")
        assert (plain.status, plain.headers.get("grpc-encoding")) == (0, None)


@pytest.mark.parametrize("server", [("--receive-seconds", "6")], indirect=True)
def test_a_request_that_does_not_come_is_not_waited_for(server: ServerProcess) -> None:
    with RawPeer(_port(server)) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, block(head(METADATA))))
        assert peer.answer(1).status == 4
