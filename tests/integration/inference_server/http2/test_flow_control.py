"""Windows, on both sides."""

from __future__ import annotations

import pytest

from tests.support.inference_server.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PREFACE,
    RST_STREAM,
    WINDOW_UPDATE,
    RawPeer,
    block,
    call,
    frame,
    head,
    message,
    settings,
)
from tests.support.inference_server.http2_transport import Transport, until_true

TOTAL = block(head("/test.Transport/Total"))
LARGE = "/test.Transport/Large"


def _widen(stream: int, by: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, by.to_bytes(4))


def _data(peer: RawPeer, size: int) -> int:
    """Read frames of data until so many bytes have come; how many did."""
    got = 0
    while got < size:
        got += len(peer.next(DATA).data)
    return got


def test_nothing_of_a_message_comes_before_the_window_is_opened(running: Transport) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=0) + call(1, b"1000", path=LARGE))
        assert "END_STREAM" not in peer.next(HEADERS, 1).flags
        peer.send(frame(6, 0, 0, b"any more"))
        assert next(peer.frames()).type == 6
        peer.send(_widen(1, 400))
        assert len(peer.next(DATA).data) == 400
        peer.send(settings(initial_window_size=605))
        assert peer.answer(1).status == 0


def test_a_window_may_become_negative_and_is_made_good_first(running: Transport) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=1000) + call(1, b"3000", path=LARGE))
        assert _data(peer, 1000) == 1000
        peer.send(settings(initial_window_size=100) + _widen(1, 900))  # -900 + 900
        peer.send(frame(6, 0, 0, b"any more"))
        assert DATA not in _types_until_ping(peer)
        peer.send(_widen(1, 5))
        assert len(peer.next(DATA).data) == 5
        peer.send(_widen(1, 2000))
        assert peer.answer(1).status == 0


def _types_until_ping(peer: RawPeer) -> list[int]:
    types = []
    for found in peer.frames():
        types.append(found.type)
        if found.type == 6:
            return types
    raise AssertionError("the connection ended")


def test_streams_take_turns_when_the_connections_window_is_the_bound(running: Transport) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=2**20))
        for stream in (1, 3, 5):
            peer.send(call(stream, b"200000", path=LARGE))
        assert _data(peer, 65_535) == 65_535
        order = []
        for _ in range(9):
            peer.send(_widen(0, 16_384))
            order.append(peer.next(DATA).stream_id)
        # The first turns may come before all three have something to send.
        assert sorted(order[3:6]) == sorted(order[6:]) == [1, 3, 5]


def test_a_small_answer_does_not_wait_for_a_large_one_that_is_stuck(running: Transport) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=20_000) + call(1, b"1000000", path=LARGE))
        assert _data(peer, 20_000) == 20_000
        assert peer.is_served(3)


def test_calls_that_were_reset_midway_do_not_use_up_the_connections_window(peer: RawPeer) -> None:
    """Each leaves most of a message behind; together they are more than the window of the connection."""
    body = message(bytes(2**20))[: 2**20]
    for stream in range(1, 81, 2):
        cut = frame(HEADERS, END_HEADERS, stream, TOTAL) + frame(DATA, 0, stream, body[: 2**19]) + frame(RST_STREAM, 0, stream, bytes(4))
        peer.send(cut + frame(DATA, 0, stream, body[2**19 :]))
    assert peer.is_served(81)


def test_padding_is_given_back_to_the_callers_window(peer: RawPeer) -> None:
    """The frames carry a byte each and 250 of padding: more than the window, were it not given back."""
    peer.send(frame(HEADERS, END_HEADERS, 1, TOTAL) + frame(DATA, 0, 1, message(bytes(6000))[:5]))
    for _ in range(6000):
        peer.send(frame(DATA, PADDED, 1, b"\xfa\x00" + bytes(250)))
    peer.send(frame(DATA, END_STREAM, 1))
    assert peer.answer(1).messages == [b"6000"]


def test_a_message_larger_than_the_window_is_let_in(peer: RawPeer) -> None:
    content = message(bytes(5 * 2**20))
    peer.send(frame(HEADERS, END_HEADERS, 1, TOTAL) + frame(DATA, 0, 1, content[:5]))
    window = 2**20 - 5 + peer.next(WINDOW_UPDATE, 1).window_increment
    assert window >= 5 * 2**20
    for at in range(5, len(content), 2**20):
        peer.send(frame(DATA, 0, 1, content[at : at + 2**20]))
    peer.send(frame(DATA, END_STREAM, 1))
    assert peer.answer(1).messages == [str(5 * 2**20).encode()]


def test_a_stream_of_messages_is_let_in_as_it_is_read(peer: RawPeer) -> None:
    """Three times the window in small messages, each sent when there is window for it."""
    peer.send(frame(HEADERS, END_HEADERS, 1, TOTAL))
    window, sent = 2**20, 0
    while sent < 3 * 2**20:
        content = message(bytes(60_000))
        while window < len(content):
            window += peer.next(WINDOW_UPDATE, 1).window_increment
        peer.send(frame(DATA, 0, 1, content))
        window -= len(content)
        sent += len(content) - 5
    peer.send(frame(DATA, END_STREAM, 1))
    assert peer.answer(1).messages == [str(sent).encode()]


def test_a_stream_of_answers_waits_for_a_client_that_does_not_read(running: Transport) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=65_535) + call(1, b"10000 10000", path="/test.Transport/Count"))
        assert _data(peer, 65_535) == 65_535
        until_true(lambda: running.held()["leaving"] > 0)
        made = running.most_waiting
        assert made < 100
        assert running.held()["leaving"] <= 2**18 + 10_005


@pytest.mark.parametrize("name", ["Large", "Count"])
def test_a_socket_that_is_not_read_holds_little(running: Transport, name: str) -> None:
    """The windows are wide open, and nobody reads."""
    with RawPeer(running.port, greet=False, read_buffer=16 * 1024) as peer:
        peer.send(PREFACE + settings(initial_window_size=2**31 - 1) + _widen(0, 2**30))
        content = b"6000000" if name == "Large" else b"100000 10000"
        peer.send(call(1, content, path=f"/test.Transport/{name}"))
        until_true(lambda: running.held()["leaving"] > 0)
        assert running.held()["leaving"] <= 2**18 + 6_000_005
        assert running.most_waiting < 3000
    assert running.comes_to_rest() == {}
