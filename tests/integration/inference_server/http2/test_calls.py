"""Calls of gRPC, as a client sees them on the wire."""

from __future__ import annotations

import base64
import gzip
import zlib
from typing import Any

import pytest

from tests.support.inference_server.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    RawPeer,
    block,
    call,
    frame,
    head,
    is_served,
    message,
    settings,
)
from tests.support.inference_server.http2_transport import LOOPS, Transport, transport, until_true

OK, DEADLINE, NOT_FOUND, EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 4, 5, 8, 12, 13, 14
TOTAL = block(head("/test.Transport/Total"))
SESSION = (
    call(1)
    + call(3, b"8 100", path="/test.Transport/Count")
    + frame(HEADERS, 0, 5, TOTAL[:20])
    + frame(CONTINUATION, END_HEADERS, 5, TOTAL[20:])
    + frame(DATA, 0, 5, message(bytes(3000))[:7])
    + frame(DATA, 8, 5, b"\x04" + message(bytes(3000))[7:2000] + bytes(4))
    + frame(DATA, 0, 5, message(bytes(3000))[2000:] + message(b"") + message(b"abc"))
    + frame(HEADERS, END_HEADERS | END_STREAM, 5, block([("trailer", "of the request")]))
    + call(7, path="/test.Transport/Fail")
    + call(9, path="/test.Transport/Nothing")
    + call(11, path="/test.Transport/Metadata", a="1", b_bin="AAEC")
)


def _answers(peer: RawPeer, chunks: list[bytes]) -> list[Any]:
    for chunk in chunks:
        peer.send(chunk)
    found = {}
    ended = 0
    answers: dict[int, Any] = {}
    for stream in (1, 3, 5, 7, 9, 11):
        answers[stream] = (b"", {})
    decoder = peer._decoder
    for got in peer.frames():
        if got.stream_id in answers:
            content, headers = answers[got.stream_id]
            if got.type == DATA:
                content += got.data
            elif got.type == HEADERS:
                headers = headers | {str(name): str(value) for name, value in decoder.decode(got.data)}
            answers[got.stream_id] = (content, headers)
            found[got.stream_id] = found.get(got.stream_id, 0) + 1
            ended += "END_STREAM" in got.flags
        if ended == len(answers):
            return [answers[stream] for stream in sorted(answers)]
    raise AssertionError("the connection ended")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 9, 10, 13, 64, 1000, 10**6])
def test_any_chunks_of_the_same_bytes_get_the_same_answers(running: Transport, size: int) -> None:
    content = PREFACE + settings() + SESSION
    with RawPeer(running.port, greet=False) as peer:
        whole = _answers(peer, [content])
    assert [answer[1]["grpc-status"] for answer in whole] == ["0", "0", "0", "5", "12", "0"]
    assert whole[2][0] == message(b"3003")
    with RawPeer(running.port, greet=False) as peer:
        peer.socket.setsockopt(6, 1, 1)  # TCP_NODELAY: each chunk goes by itself
        assert _answers(peer, [content[at : at + size] for at in range(0, len(content), size)]) == whole


def test_the_settings_are_told_first_and_the_peers_are_acknowledged(running: Transport) -> None:
    with RawPeer(running.port) as peer:
        came = peer.frames()
        first = next(came)
        assert (first.type, first.settings[3], first.settings[5]) == (SETTINGS, 100, 2**20)
        until = next(found for found in came if found.type == SETTINGS)
        assert "ACK" in until.flags


def test_a_ping_is_answered_with_its_content(peer: RawPeer) -> None:
    peer.send(frame(PING, 0, 0, b"are you?"))
    found = peer.next(PING)
    assert (found.opaque_data, "ACK" in found.flags) == (b"are you?", True)


def test_an_error_is_one_frame_of_headers_with_words_and_metadata(peer: RawPeer) -> None:
    peer.send(call(1, path="/test.Transport/Fail"))
    answer = peer.answer(1)
    assert (answer.status, answer.content, answer.reset) == (NOT_FOUND, b"", None)
    assert answer.headers["grpc-message"] == "nothing: %C3%A9%25 there%0A"
    assert (answer.headers["tried"], answer.headers["raw-bin"]) == ("twice", base64.b64encode(b"\x00\xff").decode().rstrip("="))


def test_metadata_is_given_as_it_was_sent(peer: RawPeer) -> None:
    sent = {"a": "1", "b-bin": "AAEC,/w==", "c": "é", "grpc-timeout": "10S"}
    peer.send(call(1, path="/test.Transport/Metadata", **sent))
    assert peer.answer(1).messages == [repr([("a", "1"), ("b-bin", b"\0\1\2"), ("b-bin", b"\xff"), ("c", "é")]).encode()]


NO_CALLS = {
    "no content-type": ({"content_type": None}, "415"),
    "another content-type": ({"content_type": "application/json"}, "415"),
    "gRPC for browsers": ({"content_type": "application/grpc-web"}, "415"),
    "another method": ({"pseudo_method": "GET"}, "405"),
    "a time that is none": ({"grpc_timeout": "soon"}, "400"),
    "a time of too many digits": ({"grpc_timeout": "123456789S"}, "400"),
    "a time before now": ({"grpc_timeout": "-1S"}, "400"),
    "metadata that is no base64": ({"x_bin": "***"}, "400"),
}


@pytest.mark.parametrize("case", NO_CALLS)
def test_what_is_no_call_gets_a_status_of_http_and_words(peer: RawPeer, case: str) -> None:
    changes, status = NO_CALLS[case]
    peer.send(settings(initial_window_size=0) + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(head(**changes))))
    answer = peer.answer(1)
    assert (answer.headers[":status"], answer.status, bool(answer.headers["grpc-message"])) == (status, INTERNAL, True)


def test_metadata_beyond_the_limit_is_refused_by_its_size(peer: RawPeer) -> None:
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(head(a="x" * 16_400))))
    answer = peer.answer(1)
    assert (answer.headers[":status"], answer.status, "16384" in answer.headers["grpc-message"]) == ("431", EXHAUSTED, True)
    assert peer.is_served(3)


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"])
def test_each_content_type_of_grpc_is_taken(peer: RawPeer, content_type: str) -> None:
    peer.send(call(1, content_type=content_type))
    assert peer.answer(1).messages == [b"hello"]


def test_a_method_that_there_is_not_is_unimplemented(peer: RawPeer) -> None:
    peer.send(call(1, path="/test.Transport/Nothing") + call(3, path="nowhere") + call(5, path=""))
    assert [peer.answer(stream).status for stream in (1, 3, 5)] == [UNIMPLEMENTED] * 3


@pytest.mark.parametrize(
    "content",
    [b"", message(b"hello")[:4], message(b"hello")[:8], message(b"hello", 2)],
    ids=["no message", "half a prefix", "half a message", "an unknown flag"],
)
def test_a_request_that_is_not_whole_is_an_error_of_that_call(peer: RawPeer, content: bytes) -> None:
    peer.send(frame(HEADERS, END_HEADERS, 1, block(head())) + frame(DATA, END_STREAM, 1, content))
    assert peer.answer(1).status == INTERNAL
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, block(head())))
    assert peer.answer(3).status == INTERNAL
    assert peer.is_served(5)


def test_a_request_that_goes_on_after_its_answer_is_told_to_stop(peer: RawPeer) -> None:
    peer.send(frame(HEADERS, END_HEADERS, 1, block(head())) + frame(DATA, 0, 1, message(b"hello")))
    assert peer.answer(1).status == OK
    assert peer.next(RST_STREAM, 1).error_code == 0


def test_a_large_last_message_ends_a_request(peer: RawPeer) -> None:
    content = message(bytes(300_000)) + message(bytes(200_000))
    peer.send(frame(HEADERS, END_HEADERS, 1, TOTAL) + frame(DATA, 0, 1, content[:250_000]) + frame(DATA, END_STREAM, 1, content[250_000:]))
    assert peer.answer(1).messages == [b"500000"]


def test_a_deadline_that_passes_ends_the_call(running: Transport, peer: RawPeer) -> None:
    for stream, timeout in ((1, "50m"), (3, "0n")):
        peer.send(call(stream, path="/test.Transport/Wait", grpc_timeout=timeout))
        assert peer.answer(stream).status == DEADLINE
    until_true(lambda: running.waiting == 0)
    assert running.waiting == 0


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_compressed_requests_are_read(peer: RawPeer, name: str) -> None:
    squeeze = {"gzip": gzip.compress, "deflate": zlib.compress}[name]
    for stream, content in ((1, b"small"), (3, bytes(3 * 2**20))):
        body = message(squeeze(content), 1)
        start = frame(HEADERS, END_HEADERS, stream, block(head("/test.Transport/Total", grpc_encoding=name)))
        peer.send(start + frame(DATA, END_STREAM, stream, body))
        assert peer.answer(stream).messages == [str(len(content)).encode()]


BROKEN = {
    "not compressed": (b"not compressed", INTERNAL),
    "cut": (gzip.compress(b"hello" * 100)[:-9], INTERNAL),
    "with more after it": (gzip.compress(b"hello") + b"more", INTERNAL),
    "of nothing": (b"", INTERNAL),
    "a bomb": (gzip.compress(bytes(40 * 2**20)), EXHAUSTED),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_decompressed_is_an_error_of_that_call(peer: RawPeer, case: str) -> None:
    content, status = BROKEN[case]
    peer.send(frame(HEADERS, END_HEADERS, 1, block(head(grpc_encoding="gzip"))) + frame(DATA, END_STREAM, 1, message(content, 1)))
    assert peer.answer(1).status == status
    assert peer.is_served(3)


def test_an_encoding_that_there_is_not_is_named_with_those_that_there_are(peer: RawPeer) -> None:
    peer.send(call(1, grpc_encoding="snappy"))
    answer = peer.answer(1)
    assert (answer.status, "gzip" in answer.headers["grpc-message"]) == (UNIMPLEMENTED, True)
    assert answer.headers["grpc-accept-encoding"] == "identity,deflate,gzip"


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_answers_are_compressed_where_it_is_set_and_the_caller_reads_it(name: str) -> None:
    with transport(limits={"response_encoding": name}) as running, RawPeer(running.port) as peer:
        for stream, accepted, size in ((1, f"identity,{name}", 1000), (3, "identity", 1000), (5, name, 10), (7, name, 50_000)):
            peer.send(call(stream, bytes(size), grpc_accept_encoding=accepted))
            answer = peer.answer(stream)
            is_compressed = name in accepted and size > 10
            assert (answer.headers.get("grpc-encoding") == name, answer.content[0]) == (name in accepted, is_compressed)
            content = zlib.decompress(answer.messages[0], 47) if is_compressed else answer.messages[0]
            assert content == bytes(size)


@pytest.mark.parametrize("size", [0, 16_379, 16_380, 100_000])
def test_frames_are_no_larger_than_the_peer_takes(running: Transport, size: int) -> None:
    with RawPeer(running.port, greet=False) as peer:
        peer.send(PREFACE + settings(max_frame_size=16_384, initial_window_size=2**20) + frame(8, 0, 0, (2**20).to_bytes(4)))
        peer.send(call(1, str(size).encode(), path="/test.Transport/Large"))
        answer = peer.answer(1)
        assert (len(answer.messages[0]), max(answer.frame_sizes) <= 16_384) == (size, True)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_leaves_serves_what_has_come_and_then_ends_the_connection(loop: str) -> None:
    with transport(loop, age_seconds=3600) as running, RawPeer(running.port) as peer:
        peer.send(frame(HEADERS, END_HEADERS, 1, TOTAL) + frame(DATA, 0, 1, message(b"abc")))
        assert peer.next(SETTINGS).stream_id == 0
        until_true(lambda: running.held()["calls"] == 1)
        running.on_loop(running.server.leave)
        told = peer.next(GOAWAY)
        question = peer.next(PING)
        assert (told.last_stream_id, told.error_code) == (2**31 - 1, 0)
        peer.send(call(3))
        assert peer.answer(3).messages == [b"hello"]
        peer.send(frame(PING, 1, 0, question.opaque_data))
        assert peer.next(GOAWAY).last_stream_id == 3
        peer.send(call(5) + frame(DATA, END_STREAM, 1, message(b"defg")))
        assert peer.answer(1).messages == [b"7"]
        assert peer.end() is None
        assert is_served(running.port)


def test_calls_that_run_are_told_when_the_server_stops(running: Transport, peer: RawPeer) -> None:
    peer.send(call(1, path="/test.Transport/Wait"))
    until_true(lambda: running.waiting == 1)
    running.loop.call_soon_threadsafe(lambda: running.loop.create_task(running.server.stop()))
    assert peer.answer(1).status == UNAVAILABLE
    assert peer.end() is None
