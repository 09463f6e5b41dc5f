"""Frames of HTTP/2 that nobody should send: right ones, damaged ones, and random ones, in any order and cut anywhere."""

from __future__ import annotations

import gzip

from hypothesis import strategies as st

from tests.support.http2 import PREFACE, block, call, frame, head, message, settings

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


def sessions(paths: list[str]) -> st.SearchStrategy[list[bytes]]:
    """What a peer sends, in the chunks that it sends it in."""
    frames = st.lists(_frames(paths), min_size=1, max_size=12).map(b"".join)
    greeting = st.sampled_from([PREFACE + settings(), PREFACE + settings(), PREFACE, b""])
    whole = st.builds(lambda begin, rest: begin + rest, greeting, st.one_of(frames, frames.flatmap(_damaged)))
    return st.tuples(whole, st.one_of(st.just(10**9), st.integers(1, 40))).map(
        lambda drawn: [drawn[0][at : at + drawn[1]] for at in range(0, len(drawn[0]), drawn[1])]
    )
