"""The life of a connection, and what is left when it ends in the middle of something."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import struct
import time
import tracemalloc
from typing import Any

import grpc
import pytest

from tests.support.inference_server.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    RawPeer,
    block,
    call,
    frame,
    head,
    is_served,
    message,
    settings,
)
from tests.support.inference_server.http2_transport import LOOPS, SECONDS, Transport, transport, until_true

OPEN = frame(HEADERS, END_HEADERS, 1, block(head("/test.Transport/Total")))
WIDE = settings(initial_window_size=2**30) + frame(WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4))
PHASES = {
    "amid headers": frame(HEADERS, 0, 1, block(head())),
    "before a message": OPEN,
    "amid a message": OPEN + frame(DATA, 0, 1, message(bytes(2**20))[:100_000]),
    "amid a large frame": OPEN + frame(DATA, 0, 1, message(bytes(2**20 - 5)))[:500_000],
    "between messages": OPEN + frame(DATA, 0, 1, message(b"abc")),
    "with messages that nobody reads": frame(HEADERS, END_HEADERS, 1, block(head("/test.Transport/Wait")))
    + frame(DATA, 0, 1, message(bytes(9000)) * 5),
    "amid its work": call(1, path="/test.Transport/Wait"),
    "before its work": call(1),
    "amid an answer that waits for windows": call(1, b"1000000", path="/test.Transport/Large"),
    "amid an answer that waits for the socket": WIDE + call(1, b"7000000", path="/test.Transport/Large"),
    "amid answers": WIDE + call(1, b"100000 1000", path="/test.Transport/Count"),
    "amid a compressed request": frame(HEADERS, END_HEADERS, 1, block(head(grpc_encoding="gzip")))
    + frame(DATA, 0, 1, message(b"x" * 90, 1)[:50]),
}


@pytest.mark.parametrize("case", PHASES)
@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_client_that_goes_away_leaves_nothing_behind(running: Transport, case: str, how: str) -> None:
    with RawPeer(running.port, read_buffer=16 * 1024) as peer:
        peer.send(PHASES[case])
        if how == "reset":
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            time.sleep(0.05)
    until_true(lambda: running.reasons)
    assert running.comes_to_rest() == {}
    assert running.waiting == 0
    assert is_served(running.port)


@pytest.mark.parametrize("case", [case for case in PHASES if case != "amid headers"])
def test_a_call_that_is_cancelled_leaves_nothing_behind(running: Transport, peer: RawPeer, case: str) -> None:
    whole = {"amid a large frame": frame(DATA, 0, 1, message(bytes(2**20 - 5)))[500_000:]}
    peer.send(PHASES[case] + whole.get(case, b""))
    time.sleep(0.05)
    peer.send(frame(RST_STREAM, 0, 1, (8).to_bytes(4)))
    peer.send(frame(WINDOW_UPDATE, 0, 0, (2**20).to_bytes(4)))
    assert peer.is_served(5)
    assert running.comes_to_rest() == {}
    assert running.waiting == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_silent_peer_is_asked_and_let_go_when_it_does_not_answer(loop: str) -> None:
    with transport(loop, keepalive_seconds=0.3, answer_seconds=5.0) as running, RawPeer(running.port) as peer:
        for _ in range(2):
            question = next(found for found in peer.frames() if found.type == PING)
            peer.send(frame(PING, 1, 0, question.opaque_data))
        assert peer.end() is None
        until_true(lambda: running.reasons)
        assert running.reasons == ["keepalive"]


def test_pings_that_come_too_soon_end_the_connection_by_name(running: Transport, peer: RawPeer) -> None:
    for _ in range(4):
        peer.send(frame(PING, 0, 0, bytes(8)))
    found = peer.next(GOAWAY)
    assert (found.error_code, found.additional_data) == (11, b"too_many_pings")


def test_pings_with_calls_between_them_may_come_at_any_time(peer: RawPeer) -> None:
    for stream in range(1, 41, 2):
        peer.send(frame(PING, 0, 0, bytes(8)))
        assert peer.is_served(stream)


@pytest.mark.parametrize("bound", ["idle_seconds", "age_seconds"])
def test_a_connection_that_is_idle_or_old_is_told_and_ended_in_peace(bound: str) -> None:
    bounds = {bound: 60.0, "keepalive_seconds": 1000.0, "answer_seconds": 1000.0}
    with transport("moved", **bounds) as running, RawPeer(running.port) as peer:
        assert peer.is_served(1)
        running.pass_seconds(70)
        assert (peer.next(GOAWAY).last_stream_id, peer.next(PING).opaque_data) == (2**31 - 1, b"leaving\0")
        peer.send(call(3) + frame(PING, 1, 0, b"leaving\0"))
        assert peer.answer(3).messages == [b"hello"]
        peer.end()
        until_true(lambda: running.reasons)
        assert running.reasons == [bound.removesuffix("_seconds")]


def test_a_connection_with_a_call_is_not_idle() -> None:
    bounds = {"idle_seconds": 60.0, "keepalive_seconds": 1000.0, "receive_seconds": 1000.0}
    with transport("moved", **bounds) as running, RawPeer(running.port) as peer:
        peer.send(OPEN + frame(DATA, 0, 1, message(b"abc")))
        until_true(lambda: running.held()["streams"] == 1)
        running.pass_seconds(150)
        peer.send(frame(DATA, END_STREAM, 1))
        assert peer.answer(1).last_stream is None
        assert running.reasons == []


def test_a_peer_that_never_greets_is_slow_however_soon_others_are_idle() -> None:
    with transport(idle_seconds=0.5, receive_seconds=1.5) as running, RawPeer(running.port, greet=False):
        until_true(lambda: running.reasons)
        assert running.reasons == ["slow_request"]


def test_an_idle_connection_takes_little_memory(running: Transport) -> None:
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(RawPeer(running.port)).is_served(1)
        gc.collect()
        tracemalloc.start()
        try:
            peers = [stack.enter_context(RawPeer(running.port)) for _ in range(100)]
            assert all(peer.is_served(1) for peer in peers)
            gc.collect()
            taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/inference_server/*")])
        finally:
            tracemalloc.stop()
    assert sum(trace.size for trace in taken.statistics("filename")) / 100 < 8 * 1024


@pytest.mark.parametrize("loop", LOOPS)
def test_a_large_answer_is_taken_whole_while_the_server_stops(loop: str) -> None:
    with transport(loop) as running, RawPeer(running.port, read_buffer=16 * 1024) as peer:
        peer.send(WIDE + call(1, b"6000000", path="/test.Transport/Large"))
        until_true(lambda: running.held()["leaving"] > 0)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        until_true(lambda: _reads_on(peer) and running.held()["calls"] == 0)
        running.loop.call_soon_threadsafe(lambda: running.loop.create_task(running.server.stop()))
        assert _rest(peer) == 6_000_005


_got: dict[int, int] = {}


def _reads_on(peer: RawPeer) -> bool:
    found = peer.next(DATA)
    _got[id(peer)] = _got.get(id(peer), 0) + len(found.data)
    return True


def _rest(peer: RawPeer) -> int:
    return _got.pop(id(peer)) + sum(len(found.data) for found in peer.frames() if found.type == DATA)


def test_a_defect_of_ours_ends_one_connection_and_is_logged(
    running: Transport, peer: RawPeer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(path: str) -> Any:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patched:
        patched.setattr(running.server._methods, "find", fails)
        peer.send(call(1))
        assert peer.end() == 2
    assert is_served(running.port)


def test_no_log_holds_metadata_or_content(running: Transport, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "Bearer do-not-tell"
    for content in (
        call(1, secret.encode(), authorization=secret),
        call(1, secret.encode(), authorization=secret, path=f"/{secret}"),
        call(1, secret.encode(), authorization=f"{secret}\n"),
        frame(HEADERS, 0, 1, block(head(authorization=secret))) + frame(PING, 0, 0, bytes(8)),
        frame(DATA, 0, 1, secret.encode()),
        frame(HEADERS, 5, 1, block(head(authorization=secret)) + b"\xff\xff\xff\xff"),
    ):
        with RawPeer(running.port) as peer:
            peer.send(content)
            peer.socket.shutdown(socket.SHUT_WR)
            peer.end()
    logged = "".join(capsys.readouterr()) + caplog.text
    assert ("connection_ended" in logged, "do-not-tell" in logged) == (True, False)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_of_grpc_notices_nothing_when_connections_are_ended_in_peace(loop: str) -> None:
    with transport(loop, age_seconds=0.2) as running, grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        one = channel.unary_unary("/test.Transport/One")
        until = time.monotonic() + SECONDS
        while running.reasons.count("age") < 3 and time.monotonic() < until:
            assert one(b"hello", timeout=SECONDS) == b"hello"
        assert running.reasons[:3] == ["age"] * 3


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_that_does_not_read_does_not_keep_the_server_from_stopping(loop: str) -> None:
    with transport(loop) as running, RawPeer(running.port, read_buffer=16 * 1024) as peer:
        peer.send(WIDE + call(1, b"7000000", path="/test.Transport/Large") + call(3, path="/test.Transport/Wait"))
        until_true(lambda: running.held()["leaving"] > 0 and running.waiting == 1)
        asyncio.run_coroutine_threadsafe(running.server.stop(), running.loop).result(SECONDS)
        assert running.comes_to_rest() == {}
        with pytest.raises(ConnectionRefusedError):
            RawPeer(running.port)
