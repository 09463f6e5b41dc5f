"""What breaks HTTP/2 ends the call or the connection as RFC 9113 says, and nothing else."""

from __future__ import annotations

import pytest

from tests.support.inference_server.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
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
from tests.support.inference_server.http2_transport import Transport, until_true

PROTOCOL, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, COMPRESSION, CALM = 1, 3, 5, 6, 9, 11
OPEN = frame(HEADERS, END_HEADERS, 1, block(head("/test.Transport/Total")))
HEAD = block(head())

BREAK_THE_CONNECTION = {
    "data on stream 0": (frame(DATA, 0, 0, b"x"), PROTOCOL),
    "data of a stream that was never opened": (frame(DATA, 0, 5, b"x"), PROTOCOL),
    "data of a stream of the server's": (call(3) + frame(DATA, 0, 2, b"x"), PROTOCOL),
    "data that is all padding and more": (OPEN + frame(DATA, PADDED, 1, b"\x05abc"), PROTOCOL),
    "padded data of no bytes": (OPEN + frame(DATA, PADDED, 1), FRAME_SIZE),
    "data that is larger than a frame may be": (OPEN + (2**20 + 1).to_bytes(3) + bytes([DATA, 0, 0, 0, 0, 1]), FRAME_SIZE),
    "more data than the window": (OPEN + 2 * frame(DATA, 0, 1, message(bytes(10)) + bytes(2**20 - 15)), FLOW_CONTROL),
    "headers on stream 0": (frame(HEADERS, END_HEADERS, 0, HEAD), PROTOCOL),
    "headers on an even stream": (frame(HEADERS, END_HEADERS, 2, HEAD), PROTOCOL),
    "headers whose padding is too long": (frame(HEADERS, END_HEADERS | PADDED, 1, b"\xffabc"), PROTOCOL),
    "headers that are too short for a priority": (frame(HEADERS, END_HEADERS | 0x20, 1, b"abc"), FRAME_SIZE),
    "headers that are no HPACK": (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), COMPRESSION),
    "headers with a table that is too large": (frame(HEADERS, END_HEADERS, 1, b"\x3f\xe1\xff\x03" + HEAD), COMPRESSION),
    "a table whose size changes on and on": (frame(HEADERS, END_HEADERS, 1, b"\x20\x3f\xe1\x1f\x20" + HEAD), COMPRESSION),
    "headers that end inside a name": (frame(HEADERS, END_HEADERS, 1, b"\x00\x7fabc"), COMPRESSION),
    "headers that are Huffman's garbage": (frame(HEADERS, END_HEADERS, 1, b"\x00\x84\xff\xff\xff\xff\x01a"), COMPRESSION),
    "another frame between headers": (frame(HEADERS, 0, 1, HEAD) + frame(PING, 0, 0, bytes(8)), PROTOCOL),
    "data between headers": (frame(HEADERS, 0, 1, HEAD) + frame(DATA, 0, 1, b"x"), PROTOCOL),
    "headers that go on for another stream": (frame(HEADERS, 0, 1, HEAD) + frame(CONTINUATION, END_HEADERS, 3), PROTOCOL),
    "headers that go on and never began": (frame(CONTINUATION, END_HEADERS, 1, HEAD), PROTOCOL),
    "a priority that is too short": (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE),
    "a priority on stream 0": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "a reset on stream 0": (frame(RST_STREAM, 0, 0, bytes(4)), PROTOCOL),
    "a reset of a stream that was never opened": (frame(RST_STREAM, 0, 7, bytes(4)), PROTOCOL),
    "a reset that is too long": (OPEN + frame(RST_STREAM, 0, 1, bytes(5)), FRAME_SIZE),
    "settings on a stream": (frame(SETTINGS, 0, 1), PROTOCOL),
    "settings that end inside one": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE),
    "an acknowledgement with settings": (frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE),
    "a window that is too large": (settings(initial_window_size=2**31), FLOW_CONTROL),
    "frames that are too small": (settings(max_frame_size=16_383), PROTOCOL),
    "frames that are too large": (settings(max_frame_size=2**24), PROTOCOL),
    "pushes neither allowed nor not": (settings(enable_push=2), PROTOCOL),
    "a window that a setting makes too large": (
        OPEN + frame(WINDOW_UPDATE, 0, 1, (2**31 - 1 - 65_535).to_bytes(4)) + settings(initial_window_size=65_536),
        FLOW_CONTROL,
    ),
    "a push": (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + HEAD), PROTOCOL),
    "a ping that is too short": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE),
    "a ping on a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL),
    "a farewell on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "a window that grows by nothing": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL),
    "a window that grows too much": (frame(WINDOW_UPDATE, 0, 0, (2**31 - 1).to_bytes(4)), FLOW_CONTROL),
    "a window of a stream that was never opened": (frame(WINDOW_UPDATE, 0, 9, (1).to_bytes(4)), PROTOCOL),
    "a window that is too short": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE),
    "a control frame of 100 KB": (frame(0x77, 0, 0, bytes(100_000)), FRAME_SIZE),
}


@pytest.mark.parametrize("case", BREAK_THE_CONNECTION)
def test_what_breaks_the_connection_ends_it_and_says_why(running: Transport, peer: RawPeer, case: str) -> None:
    content, code = BREAK_THE_CONNECTION[case]
    peer.send(content)
    assert peer.end() == code
    assert is_served(running.port)


BREAK_THE_CALL = {
    "data after the end": (call(1, path="/test.Transport/Wait") + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    "headers after the end": (call(1, path="/test.Transport/Wait") + frame(HEADERS, 5, 1, block([("a", "b")])), STREAM_CLOSED),
    "headers amid a request": (OPEN + frame(HEADERS, END_HEADERS, 1, block([("a", "b")])), PROTOCOL),
    "a window that grows by nothing": (OPEN + frame(WINDOW_UPDATE, 0, 1, bytes(4)), PROTOCOL),
    "a window that grows too much": (OPEN + frame(WINDOW_UPDATE, 0, 1, (2**31 - 1).to_bytes(4)), FLOW_CONTROL),
    "no method": (call(1, pseudo_method=None), PROTOCOL),
    "no path": (call(1, pseudo_path=None), PROTOCOL),
    "no scheme": (call(1, pseudo_scheme=None), PROTOCOL),
    "a pseudo-header that there is not": (call(1, pseudo_status="200"), PROTOCOL),
    "a pseudo-header after others": (frame(HEADERS, 5, 1, block([*head()[1:], head()[0]])), PROTOCOL),
    "a pseudo-header twice": (frame(HEADERS, 5, 1, block([head()[0], *head()])), PROTOCOL),
    "a name with capitals": (call(1, Name="x"), PROTOCOL),
    "a name with a space": (frame(HEADERS, 5, 1, block([*head(), ("a b", "x")])), PROTOCOL),
    "a name of nothing": (frame(HEADERS, 5, 1, block([*head(), ("", "x")])), PROTOCOL),
    "a value with a new line": (call(1, name="a\nb"), PROTOCOL),
    "a header of HTTP/1.1": (call(1, connection="close"), PROTOCOL),
    "trailers that are not wanted": (call(1, te="gzip"), PROTOCOL),
}


@pytest.mark.parametrize("case", BREAK_THE_CALL)
def test_what_breaks_a_call_ends_that_call_alone(peer: RawPeer, case: str) -> None:
    content, code = BREAK_THE_CALL[case]
    peer.send(content)
    assert peer.answer(1).reset == code
    assert peer.is_served(3)


def test_a_call_that_is_broken_amid_its_work_is_cancelled(running: Transport, peer: RawPeer) -> None:
    peer.send(call(1, path="/test.Transport/Wait"))
    until_true(lambda: running.waiting == 1)
    peer.send(frame(DATA, 0, 1, b"x"))
    assert peer.answer(1).reset == STREAM_CLOSED
    until_true(lambda: running.waiting == 0)
    assert running.waiting == 0


IGNORED = {
    "a frame of a type that there is not": frame(0x77, 0xFF, 1, b"whatever"),
    "a setting that there is not": frame(SETTINGS, 0, 0, b"\xff\xff\x00\x00\x00\x01"),
    "a priority": frame(PRIORITY, 0, 9, bytes(5)),
    "a farewell": frame(GOAWAY, 0, 0, bytes(8)),
    "an answer to no ping": frame(PING, ACK, 0, bytes(8)),
    "flags that mean nothing": frame(PING, 0xFE, 0, bytes(8)),
    "a reserved bit": frame(WINDOW_UPDATE, 0, 0, (2**31 + 1).to_bytes(4)),
}


@pytest.mark.parametrize("case", IGNORED)
def test_what_means_nothing_is_ignored(peer: RawPeer, case: str) -> None:
    peer.send(IGNORED[case])
    assert peer.is_served(11)


def test_what_comes_for_a_call_that_was_answered_is_ignored(peer: RawPeer) -> None:
    peer.send(call(1))
    assert peer.answer(1).status == 0
    late = frame(DATA, 0, 1, b"late") + frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4)) + frame(RST_STREAM, 0, 1, bytes(4))
    peer.send(late + frame(HEADERS, END_HEADERS | END_STREAM, 1, block([("late", "trailer")])))
    assert peer.is_served(3)


@pytest.mark.parametrize(
    "content", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"]
)
def test_what_is_no_http2_gets_no_connection(running: Transport, content: bytes) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(content)
        assert peer.end() == PROTOCOL
    assert is_served(running.port)


@pytest.mark.parametrize("first", [frame(PING, 0, 0, bytes(8)), frame(HEADERS, 5, 1, HEAD), frame(DATA, 0, 1, b"x")])
def test_a_greeting_begins_with_settings(running: Transport, first: bytes) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + first)
        assert peer.end() == PROTOCOL
