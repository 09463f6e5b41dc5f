"""PNG files as Pillow's own reader has them, and damaged ones."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from inference_server.tasks.documents.png import QuickPng


def packed(mode: str, size: tuple[int, int], **options: object) -> bytes:
    """A picture with an even half and a noisy one."""
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    noise[: size[1] // 2] = 200
    out = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(out, "PNG", **options)
    return out.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (333, 217), (2000, 1500)])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_all_kinds_have_the_pixels_that_zlib_unpacks(mode: str, size: tuple[int, int]) -> None:
    content = packed(mode, size)
    assert np.array_equal(np.asarray(PngImageFile(io.BytesIO(content))), np.asarray(QuickPng(io.BytesIO(content))))


@pytest.mark.parametrize("level", [0, 1, 9])
def test_all_levels_of_packing_are_unpacked(level: int) -> None:
    content = packed("RGB", (800, 700), compress_level=level)
    assert np.array_equal(np.asarray(PngImageFile(io.BytesIO(content))), np.asarray(QuickPng(io.BytesIO(content))))


def test_pixels_that_lie_in_chunks_of_a_byte_are_put_together() -> None:
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks_of(packed("RGB", (40, 30))):
        for piece in [data[at : at + 1] for at in range(len(data))] if name == b"IDAT" else [data]:
            content += len(piece).to_bytes(4, "big") + name + piece + zlib.crc32(name + piece).to_bytes(4, "big")
    assert np.array_equal(np.asarray(PngImageFile(io.BytesIO(content))), np.asarray(QuickPng(io.BytesIO(content))))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_is_cut_off_is_damaged(share: float) -> None:
    content = packed("RGB", (400, 300))
    with pytest.raises((OSError, SyntaxError)):
        QuickPng(io.BytesIO(content[: int(share * len(content))])).load()


def test_pixels_that_are_not_packed_as_they_should_be_are_damaged() -> None:
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks_of(packed("RGB", (400, 300))):
        # There is no third kind of block.
        damaged = data[:2] + b"\x07" + data[3:] if name == b"IDAT" and data[:1] == b"\x78" else data
        content += len(damaged).to_bytes(4, "big") + name + damaged + zlib.crc32(name + damaged).to_bytes(4, "big")
    with pytest.raises(OSError, match="inflated"):
        QuickPng(io.BytesIO(content)).load()


def chunks_of(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and data of a PNG's chunks."""
    at = 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += length + 12
