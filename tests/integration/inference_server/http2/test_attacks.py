"""What is sent to wear the server out ends that connection, and holds nothing; others are served meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import hpack
import pytest
from structlog.testing import capture_logs

from tests.support.inference_server.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    RawPeer,
    block,
    call,
    frame,
    head,
    is_served,
    is_served_at_last,
    message,
    settings,
)
from tests.support.inference_server.http2_transport import LOOPS, Transport, transport, until_true

CALM, EXHAUSTED, DEADLINE, CANCEL = 11, 8, 4, 8
OPEN = frame(HEADERS, END_HEADERS, 1, block(head("/test.Transport/Total")))
STUBBORN = block(head("/test.Transport/Stubborn"))

FLOODS = {
    "empty data": (OPEN, frame(DATA, 0, 1)),
    "data that is padding only": (OPEN, frame(DATA, 8, 1, b"\x03abc")),
    "data of a call that has ended": (call(1), frame(DATA, 0, 1)),
    "settings": (b"", settings(max_frame_size=20_000)),
    "acknowledgements": (b"", frame(SETTINGS, 1, 0)),
    "answers to pings": (b"", frame(PING, 1, 0, bytes(8))),
    "pings": (b"", frame(PING, 0, 0, bytes(8))),
    "priorities": (b"", frame(PRIORITY, 0, 1, bytes(5))),
    "resets of a call that has ended": (call(1), frame(RST_STREAM, 0, 1, bytes(4))),
    "trailers of a call that has ended": (call(1), frame(HEADERS, 5, 1, b"")),
    "tiny windows": (b"", frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4))),
    "tiny windows of a call": (OPEN, frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4))),
    "tiny windows that let bytes out one by one": (
        settings(initial_window_size=1) + call(1, b"50000", path="/test.Transport/Large"),
        frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4)),
    ),
    "frames of no known type": (b"", frame(0x77, 0, 0)),
    "farewells": (b"", frame(GOAWAY, 0, 0, bytes(8))),
    "headers that go on with nothing": (frame(HEADERS, 0, 1, block(head())), frame(CONTINUATION, 0, 1)),
    "headers that go on and on": (frame(HEADERS, 0, 1, block(head())), frame(CONTINUATION, 0, 1, bytes(1000))),
}


@pytest.mark.parametrize("case", FLOODS)
def test_frames_that_bring_nothing_may_come_in_bounded_numbers(running: Transport, peer: RawPeer, case: str) -> None:
    first, again = FLOODS[case]
    peer.send(first)
    sending = threading.Thread(target=_send_on_and_on, args=(peer, itertools.repeat(again, 200_000)))
    sending.start()
    assert peer.end() in (CALM, None)  # who still sends when the connection ends may not get to read why
    sending.join()
    assert running.reasons == ["enhance_your_calm"]
    assert is_served(running.port)


def _send_on_and_on(peer: RawPeer, content: Iterator[bytes]) -> None:
    with contextlib.suppress(OSError):
        while batch := b"".join(itertools.islice(content, 100)):
            peer.send(batch)


def test_a_flood_whose_answers_nobody_reads_holds_little(running: Transport) -> None:
    """Each ping comes with a call between, so that pings are allowed and frames bring something."""
    with RawPeer(running.port, read_buffer=16 * 1024) as peer:
        peer.socket.settimeout(5)
        calls = (call(stream, bytes(3000)) + frame(PING, 0, 0, bytes(8)) for stream in range(1, 2**20, 2))
        with contextlib.suppress(TimeoutError):
            _send_on_and_on(peer, calls)
        held = running.held()
        assert held["calls"] <= 100
        assert held["leaving"] <= 100 * 3005
    assert is_served(running.port)


# What is asked of a stream, with headers that are written as briefly as can be.
NOT_READ: dict[str, Callable[[int, Callable[..., bytes]], bytes]] = {
    "what is no call": lambda stream, brief: frame(HEADERS, 5, stream, brief(head(content_type="x" * 90))),
    "a method that there is not": lambda stream, brief: frame(HEADERS, 5, stream, brief(head("/nowhere"))),
    "a call that breaks the protocol": lambda stream, brief: (
        frame(HEADERS, END_HEADERS, stream, brief(head("/test.Transport/Total"))) + frame(WINDOW_UPDATE, 0, stream, bytes(4))
    ),
    "a call that is malformed": lambda stream, brief: frame(HEADERS, 5, stream, brief(head(connection="close"))),
    "a call that fails": lambda stream, brief: (
        frame(HEADERS, END_HEADERS, stream, brief(head("/test.Transport/Fail"))) + frame(DATA, END_STREAM, stream, message(b""))
    ),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("case", NOT_READ)
def test_who_asks_on_and_on_and_reads_no_answer_is_let_go(loop: str, case: str) -> None:
    """All that is asked fits the first window of TCP: a peer whose buffer is full may not even see acknowledgements, and stop asking."""
    brief = hpack.Encoder().encode
    with capture_logs() as logs, transport(loop, most_unread_bytes=1024, send_buffer=4 * 1024) as running:
        with RawPeer(running.port, read_buffer=4 * 1024) as peer:
            _send_on_and_on(peer, (NOT_READ[case](stream, brief) for stream in range(1, 2**13, 2)))
            until_true(lambda: running.reasons)
            assert running.reasons == ["enhance_your_calm"]
        assert is_served(running.port)
    assert [log["words"] for log in logs if log["event"] == "connection_ended"] == ["the answers are not read"]


def test_calls_that_are_reset_count_until_their_work_has_ended(running: Transport, peer: RawPeer) -> None:
    """CVE-2023-44487."""
    opened = (frame(HEADERS, 5, stream, STUBBORN) + frame(RST_STREAM, 0, stream, bytes(4)) for stream in range(401, 2**18, 2))
    first = b"".join(
        frame(HEADERS, END_HEADERS, stream, STUBBORN) + frame(DATA, END_STREAM, stream, message(b"")) for stream in range(1, 401, 2)
    )
    peer.send(first)
    until_true(lambda: running.waiting == 100)
    peer.send(b"".join(frame(RST_STREAM, 0, stream, bytes(4)) for stream in range(1, 401, 2)))
    _send_on_and_on(peer, opened)
    assert peer.end() in (CALM, None)
    assert running.reasons == ["enhance_your_calm"]
    assert running.most_waiting == 100
    assert is_served(running.port)
    running.may_end.set()


def test_a_small_block_does_not_become_a_large_list_of_headers(running: Transport, peer: RawPeer) -> None:
    """One entry of the table, told 100 times by a byte each."""
    value = b"x" * 3900
    insert = b"\x40\x01a\x7f" + bytes([(len(value) - 127) & 0x7F | 0x80, (len(value) - 127) >> 7]) + value
    peer.send(frame(HEADERS, 5, 1, block(head()) + insert + b"\xbe" * 100))
    assert peer.end() == CALM
    assert is_served(running.port)


def test_what_the_table_forgets_is_not_remembered(peer: RawPeer) -> None:
    """A block that was read before means nothing once the table that it named was emptied."""
    whole = block(head())
    named = whole + b"\xbe"
    peer.send(frame(HEADERS, 5, 1, whole + b"\x40\x01a\x01b") + frame(HEADERS, 5, 3, named) + frame(HEADERS, 5, 5, named))
    assert peer.answer(5).status == 13
    peer.send(frame(HEADERS, 5, 7, b"\x20" + whole) + frame(HEADERS, 5, 9, named))
    assert peer.end() == 9


def test_messages_that_are_announced_and_never_sent_take_no_room_from_others(running: Transport, peer: RawPeer) -> None:
    for stream in range(1, 61, 2):
        peer.send(frame(HEADERS, END_HEADERS, stream, block(head("/test.Transport/Total"))))
        peer.send(frame(DATA, 0, stream, message(bytes(8 * 2**20))[:10]))
    until_true(lambda: running.held()["arriving"] >= 30 * 2**20)
    assert 30 * 2**20 <= running.held()["arriving"] < 31 * 2**20
    with RawPeer(running.port) as other:
        assert other.is_served(1)


def test_empty_messages_that_nobody_reads_are_counted_with_the_memory_that_they_take(running: Transport, peer: RawPeer) -> None:
    content = message(b"") * 200_000
    for stream in (1, 3, 5):
        peer.send(frame(HEADERS, END_HEADERS, stream, block(head("/test.Transport/Wait"))))
        peer.send(frame(DATA, 0, stream, content[: 2**20 - 1]))
    until_true(lambda: running.held()["arriving"] > 30 * 2**20)
    assert 30 * 2**20 < running.held()["arriving"] <= 32 * 2**20


def test_bytes_that_arrive_are_bounded_over_all_connections(running: Transport) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(running.port)) for _ in range(3)]
        for peer in peers:
            for stream in range(1, 31, 2):
                peer.send(frame(HEADERS, END_HEADERS, stream, block(head("/test.Transport/Wait"))))
                peer.send(frame(DATA, 0, stream, message(bytes(1000)) + message(bytes(2**20 - 2000))[:-10]))
        until_true(lambda: running.held()["calls"] == 45)
        assert running.held()["arriving"] <= 32 * 2**20
        with RawPeer(running.port) as other:
            other.send(frame(HEADERS, END_HEADERS, 1, block(head())) + frame(DATA, END_STREAM, 1, message(bytes(2**20 - 100))))
            answer = other.answer(1)
            assert (answer.status, answer.headers["retry-after-ms"]) == (EXHAUSTED, "250")


@pytest.mark.parametrize("size", [8 * 2**20 + 1, 2**31, 2**32 - 1])
def test_a_message_that_is_announced_too_large_is_refused_at_once(running: Transport, peer: RawPeer, size: int) -> None:
    peer.send(frame(HEADERS, END_HEADERS, 1, block(head())) + frame(DATA, 0, 1, b"\0" + size.to_bytes(4)))
    answer = peer.answer(1)
    assert (answer.status, "larger than max" in answer.headers["grpc-message"]) == (EXHAUSTED, True)
    assert running.held()["arriving"] == 0


def test_answers_that_nobody_takes_are_bounded_in_bytes(running: Transport) -> None:
    """A hundred answers of 6 MB would be 600 MB."""
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=0))
        for stream in range(1, 201, 2):
            peer.send(call(stream, b"6000000", path="/test.Transport/Large"))
        assert peer.answer(199).status == EXHAUSTED
        assert 0 < running.held()["leaving"] <= 32 * 2**20
    with RawPeer(running.port) as other:
        assert other.is_served(1)


def test_a_call_is_open_as_long_as_its_answer_is_not_taken(running: Transport) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=0))
        for stream in range(1, 251, 2):
            peer.send(call(stream, b"1000", path="/test.Transport/Large", grpc_timeout="30S"))
        assert peer.answer(249).reset == 7
        until_true(lambda: running.held()["streams"] == 100)
        assert running.held()["streams"] == 100


@pytest.mark.parametrize("loop", LOOPS)
def test_a_call_whose_answer_is_never_taken_ends(loop: str) -> None:
    with transport(loop, send_seconds=0.4) as running, RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=10) + call(1, b"1000000", path="/test.Transport/Large"))
        assert peer.answer(1).reset == CANCEL
        assert running.comes_to_rest() == {}
        peer.send(settings(initial_window_size=65_535))
        assert peer.is_served(3)


def test_a_deadline_also_ends_a_call_whose_answer_is_not_taken(running: Transport) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(initial_window_size=10))
        # Of a machine that stands still a short one may pass before the answer is begun.
        for stream, timeout in ((1, "100m"), (3, "5S")):
            peer.send(call(stream, b"1000000", path="/test.Transport/Large", grpc_timeout=timeout))
            answer = peer.answer(stream)
            assert running.comes_to_rest() == {}
            if answer.reset is not None:
                break
        assert answer.reset == CANCEL


SLOW = {
    "no greeting": b"",
    "half a greeting": PREFACE[:10],
    "no settings": PREFACE,
    "half a frame": PREFACE + settings() + frame(HEADERS, 5, 1, block(head()))[:20],
    "a frame whose header is cut": PREFACE + settings() + b"\0\0",
    "headers that do not go on": PREFACE + settings() + frame(HEADERS, 0, 1, block(head())),
    "data whose frame is cut": PREFACE + settings() + OPEN + frame(DATA, 0, 1, message(bytes(50_000)))[:1000],
}


@pytest.mark.parametrize("case", SLOW)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_peer_that_does_not_end_what_it_began_is_let_go(loop: str, case: str) -> None:
    with transport(loop, receive_seconds=0.4) as running, RawPeer(running.port, greet=False) as peer:
        peer.send(SLOW[case])
        assert peer.end() == CALM
        until_true(lambda: running.reasons)
        assert running.reasons == ["slow_request"]
        assert is_served_at_last(running.port, patience=0.4)


def test_a_peer_that_sends_byte_after_byte_is_let_go_too() -> None:
    with transport(receive_seconds=0.5) as running, RawPeer(running.port) as peer:
        content = frame(HEADERS, 5, 1, block(head()) * 3)
        with contextlib.suppress(OSError):
            for at in range(len(content)):
                peer.send(content[at : at + 1])
                time.sleep(0.05)
        until_true(lambda: running.reasons)
        assert running.reasons == ["slow_request"]


WAITED_FOR = {
    "a message that is not begun": b"",
    "a message whose length is cut": frame(DATA, 0, 1, b"\0\0"),
    "a message that is cut": frame(DATA, 0, 1, message(b"hello")[:8]),
}


@pytest.mark.parametrize("case", WAITED_FOR)
def test_a_request_that_does_not_come_ends_its_call(case: str) -> None:
    with transport("moved", receive_seconds=60.0, keepalive_seconds=1000.0) as running, RawPeer(running.port) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, block(head())) + WAITED_FOR[case])
        until_true(lambda: running.held()["streams"] == 1)
        running.pass_seconds(70)
        assert peer.answer(1).status == DEADLINE
        assert peer.is_served(3)
        assert running.held()["arriving"] == 0


def test_a_stream_may_be_silent_between_its_messages() -> None:
    with transport("moved", receive_seconds=60.0, keepalive_seconds=1000.0) as running, RawPeer(running.port) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, block(head("/test.Transport/Both"))) + frame(DATA, 0, 1, message(b"one")))
        assert message(b"one") == peer.next(DATA, 1).data
        running.pass_seconds(150)
        peer.send(frame(DATA, END_STREAM, 1, message(b"two")))
        assert peer.answer(1).messages == [b"two"]
        assert running.reasons == []


@pytest.mark.parametrize("loop", LOOPS)
def test_connections_beyond_the_limit_are_turned_away_until_there_is_room(loop: str) -> None:
    with transport(loop, limits={"most_connections": 3}) as running, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(RawPeer(running.port)) for _ in range(3)]
        assert [peer.is_served(1) for peer in peers] == [True] * 3
        with RawPeer(running.port, greet=False) as refused:
            assert refused.end() is None
        assert running.failed_reasons == ["limit"]
        assert peers[0].is_served(3)
        peers[0].socket.close()
        until_true(lambda: running.reasons)
        assert is_served(running.port)
