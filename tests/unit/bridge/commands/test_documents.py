"""What `bridge documents status` learns from the bridge at BRIDGE_HTTP, or from whatever else listens there."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge.commands.documents import worker_facts
from bridge.settings import load
from bridge.settings_cards import load_card_worker
from tests.support.ports import free_port
from tests.support.servers.local_http import local_http

NOTHING = {"isRunning": False, "isGPUAvailable": False, "activeJobsCount": 0}


@contextmanager
def saying(words: bytes) -> Iterator[str]:
    """An address where a program says this to whoever comes first."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(words)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


def told(address: str) -> dict[str, object]:
    return asyncio.run(worker_facts(load(http=address), load_card_worker()))


def test_a_bridge_that_answers_is_believed() -> None:
    facts = {"isRunning": True, "isGPUAvailable": True, "activeJobsCount": 3}
    with local_http(lambda _: (200, json.dumps({"metrics": {"gpuWorker": facts}}).encode())) as bridge:
        assert facts == told(bridge.url.removeprefix("http://"))


@pytest.mark.parametrize("status", [500, 503])
def test_a_bridge_that_answers_with_an_error_runs_and_tells_nothing(status: int) -> None:
    with local_http(lambda _: (status, b'{"error": "unavailable"}')) as bridge:
        assert {"isRunning": True, "isGPUAvailable": None, "activeJobsCount": None} == told(bridge.url.removeprefix("http://"))


@pytest.mark.parametrize("words", [b"SSH-2.0-x\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n[]"])
def test_another_program_on_the_port_is_no_bridge(words: bytes) -> None:
    with saying(words) as address:
        assert NOTHING == told(address)


def test_where_nobody_listens_no_bridge_runs() -> None:
    assert NOTHING == told(f"127.0.0.1:{free_port()}")
