from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_server.service.http2.compression import NotDecompressed, TooLarge, compress, decompress

SQUEEZE = {"gzip": gzip.compress, "deflate": zlib.compress}


def _always(size: int) -> bool:
    return True


@pytest.mark.parametrize("encoding", SQUEEZE)
@pytest.mark.parametrize("size", [0, 1, 255, 256, 20_000, 3_000_000])
async def test_a_message_is_what_it_was(encoding: str, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert await decompress(SQUEEZE[encoding](content), encoding, most_bytes=size, hold=_always) == content
    squeezed = await compress(content, encoding)
    assert (squeezed is None) == (size < 256)
    if squeezed is not None:
        assert zlib.decompress(squeezed, 47) == content


@given(content=st.binary(max_size=100))
async def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    for encoding in SQUEEZE:
        with contextlib.suppress(NotDecompressed):
            await decompress(content, encoding, most_bytes=1000, hold=_always)


async def test_a_bomb_is_refused_without_the_memory_that_it_asks_for() -> None:
    bomb = gzip.compress(bytes(200 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="larger than max"):
            await decompress(bomb, "gzip", most_bytes=4 * 2**20, hold=_always)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


async def test_room_is_asked_for_step_by_step() -> None:
    asked: list[int] = []

    def hold(size: int) -> bool:
        asked.append(size)
        return len(asked) < 3

    with pytest.raises(TooLarge, match="too many bytes"):
        await decompress(gzip.compress(bytes(10 * 2**20)), "gzip", most_bytes=2**30, hold=hold)
    assert asked == [2**20] * 3


async def test_a_message_whose_encoding_was_not_told_is_refused() -> None:
    with pytest.raises(NotDecompressed, match="identity"):
        await decompress(gzip.compress(b"x"), "identity", most_bytes=100, hold=_always)
