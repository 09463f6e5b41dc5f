"""Frames of HTTP/2 that nobody should send: right ones, damaged ones, and random ones, in any order and cut anywhere."""

from __future__ import annotations

import contextlib
import gzip
import socket

from hypothesis import strategies as st

from tests.support.inference_server.http2 import PREFACE, RawPeer, block, call, frame, head, message, settings

_STREAMS = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7, 9, 2**31 - 1])
_NUMBERS = st.one_of(st.sampled_from([0, 1, 5, 65_535, 2**20, 2**31 - 1, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))
_SMALL = st.binary(max_size=40)


def _heads(paths: list[str]) -> st.SearchStrategy[bytes]:
    changes = st.dictionaries(
        st.sampled_from(["grpc_timeout", "grpc_encoding", "te", "content_type", "x_bin", "pseudo_method", "connection", "Name"]),
        st.sampled_from(["1S", "10m", "gzip", "trailers", "application/grpc", "AA==", "POST", "x\n", ""]),
        max_size=2,
    )
    return st.builds(lambda path, changed: block(head(path, **changed)), st.sampled_from(paths), changes)


def _bodies() -> st.SearchStrategy[bytes]:
    content = st.sampled_from([b"", b"3 50", b"20", b"x" * 2000, gzip.compress(bytes(5000))])
    whole = st.builds(message, content, st.sampled_from([0, 0, 1, 2]))
    announced = st.builds(lambda size: b"\0" + size.to_bytes(4), _NUMBERS)
    return st.one_of(whole, whole.map(lambda body: body[: len(body) // 2]), announced, _SMALL)


def _frames(paths: list[str]) -> st.SearchStrategy[bytes]:
    flags = st.one_of(st.sampled_from([0, 1, 4, 5, 8, 9, 13, 0x20, 0x24]), st.integers(0, 255))
    setting = st.builds(lambda key, value: key.to_bytes(2) + value.to_bytes(4), st.integers(0, 9), _NUMBERS)
    four = _NUMBERS.map(lambda number: number.to_bytes(4))
    return st.one_of(
        st.builds(call, _STREAMS, st.sampled_from([b"", b"3 50", b"1000"]), st.sampled_from(paths)),
        st.builds(lambda flag, stream, content: frame(1, flag, stream, content), flags, _STREAMS, st.one_of(_heads(paths), _SMALL)),
        st.builds(lambda flag, stream, content: frame(0, flag, stream, content), flags, _STREAMS, _bodies()),
        st.builds(lambda flag, stream, content: frame(9, flag, stream, content), flags, _STREAMS, st.one_of(_heads(paths), _SMALL)),
        st.builds(lambda kind, stream, content: frame(kind, 0, stream, content), st.sampled_from([3, 8]), _STREAMS, four),
        st.builds(lambda values: frame(4, 0, 0, b"".join(values)), st.lists(setting, max_size=3)),
        st.builds(frame, st.integers(0, 12), flags, _STREAMS, _SMALL),
    )


@st.composite
def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(0, 2))):
        if changed:
            changed[draw(st.integers(0, len(changed) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


def _steps(paths: list[str]) -> st.SearchStrategy[bytes]:
    """Calls one after the other, each right so far, and what else a peer may send between them."""
    body = st.sampled_from([b"", b"3 50", b"20", b"x" * 2000])
    ends = st.sampled_from(["whole", "cut", "open", "reset", "trailers", "padded", "continued"])
    call_ = st.tuples(st.just("call"), st.sampled_from(paths), body, ends)
    window = st.tuples(st.just("window"), st.integers(-6, 0), st.integers(1, 100_000), st.none())
    setting = st.tuples(st.just("setting"), st.sampled_from([4, 5, 6, 1, 99]), st.integers(16_384, 100_000), st.none())
    small = st.tuples(st.just("setting"), st.just(4), st.integers(0, 100), st.none())
    return st.lists(st.one_of(call_, call_, call_, window, setting, small), min_size=1, max_size=12).map(_written)


def _written(steps: list[tuple[str, object, object, str | None]]) -> bytes:
    content, number = b"", -1
    for kind, first, second, end in steps:
        if kind == "call":
            number += 2
            content += _call(number, str(first), bytes(second), str(end))  # type: ignore[call-overload]
        elif kind == "window":
            content += frame(8, 0, max(number + 2 * int(str(first)), 0), int(str(second)).to_bytes(4))
        else:
            content += frame(4, 0, 0, int(str(first)).to_bytes(2) + int(str(second)).to_bytes(4))
    return content


def _call(number: int, path: str, content: bytes, end: str) -> bytes:
    headers, body = block(head(path)), message(content)
    opened = frame(1, 4, number, headers)
    if end == "continued":
        opened = frame(1, 0, number, headers[:30]) + frame(9, 0, number, headers[30:31]) + frame(9, 4, number, headers[31:])
    data = {
        "whole": frame(0, 1, number, body),
        "continued": frame(0, 0, number, body[:3]) + frame(0, 1, number, body[3:]),
        "cut": frame(0, 1, number, body[:-1]),
        "open": frame(0, 0, number, body + body[:4]),
        "reset": frame(0, 0, number, body) + frame(3, 0, number, (8).to_bytes(4)),
        "trailers": frame(0, 0, number, body) + frame(1, 5, number, block([("a", "b")])),
        "padded": frame(0, 9, number, b"\x07" + body + bytes(7)),
    }
    return opened + data[end]


def sessions(paths: list[str]) -> st.SearchStrategy[list[bytes]]:
    """What a peer sends, in the chunks that it sends it in."""
    wild = st.lists(_frames(paths), min_size=1, max_size=12).map(b"".join)
    right = _steps(paths)
    any_frames = st.one_of(right, right.flatmap(_damaged), st.builds(bytes.__add__, right, wild), wild)
    greeting = st.sampled_from([PREFACE + settings()] * 8 + [PREFACE, b""])
    whole = st.builds(bytes.__add__, greeting, any_frames)
    return st.tuples(whole, st.one_of(st.just(10**9), st.integers(1, 40))).map(
        lambda drawn: [drawn[0][at : at + drawn[1]] for at in range(0, len(drawn[0]), drawn[1])]
    )


def throw(port: int, chunks: list[bytes]) -> None:
    """Send it on a connection of its own, and read on, so that all of it is understood before the end."""
    with RawPeer(port, greet=False) as peer, contextlib.suppress(OSError):
        for chunk in chunks:
            peer.send(chunk)
        peer.socket.shutdown(socket.SHUT_WR)
        peer.end()
