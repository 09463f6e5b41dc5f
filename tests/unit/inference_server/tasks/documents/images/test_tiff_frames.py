"""Frames of TIFF files: how many there are, what opening them costs, and what becomes of chains that go wrong."""

from __future__ import annotations

import io
import struct
import time

import numpy as np
import pytest
import tifffile

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.values import Limits
from tests.support.documents.opened_pages import opened
from tests.support.slides.tiff import tiff_of

LIMITS = Limits()


def level(content: bytes, index: int) -> int:
    return int(opened(content, limits=LIMITS).page(index)[0, 0, 0])


def test_opening_a_file_and_reading_its_last_page_takes_time_that_grows_with_its_frames_and_not_with_their_square() -> None:
    """Frames looked up in a list of all before them took 9 s of processor time, of 30,000."""

    def seconds(content: bytes, frames: int) -> float:
        began = time.process_time()
        pages = opened(content, limits=LIMITS)
        assert (frames, (frames - 1) % 251) == (pages.page_count, int(pages.page(frames - 1)[0, 0, 0]))
        return time.process_time() - began

    few, many = (tiff_of([n % 251 for n in range(frames)]) for frames in (2_000, 20_000))
    # Of a time that grew with the square it would be 100 times.
    assert min(seconds(many, 20_000) for _ in range(3)) < 25 * min(seconds(few, 2_000) for _ in range(3))


def test_a_file_with_more_frames_than_anyone_reads_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="more than 100000 pages") as refused:
        opened(tiff_of([0] * 100_001), limits=LIMITS)
    assert "document_pages" == refused.value.limit


@pytest.mark.parametrize("big", [False, True])
def test_frames_are_read_in_any_order_and_again(big: bool) -> None:
    pages = opened(tiff_of([10, 20, 30], big=big), limits=LIMITS)
    assert [30, 10, 20, 30] == [int(pages.page(index)[0, 0, 0]) for index in (2, 0, 1, 2)]


def test_a_chain_that_comes_back_to_its_first_frame_ends_there() -> None:
    assert 2 == opened(tiff_of([10, 20], last_next=8), limits=LIMITS).page_count


@pytest.mark.parametrize(("place", "big"), [(1_000_000, False), (2**63, True), (2**64 - 1, True)])
def test_a_frame_that_lies_behind_the_end_harms_no_other(place: int, big: bool) -> None:
    content = tiff_of([10, 20], last_next=place, big=big)
    pages = opened(content, limits=LIMITS)
    assert (3, 20) == (pages.page_count, level(content, 1))
    with pytest.raises(InvalidDocument, match="page 3 cannot be decoded: the TIFF file is damaged or cut off"):
        pages.page(2)


def tiff_by_tifffile(pixels: np.ndarray, **kind: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels, **kind)
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        tiff_by_tifffile(np.full((3, 30, 40), 40_000, np.uint16), photometric="rgb", planarconfig="separate"),
        tiff_by_tifffile(np.full((30, 40, 2), 40_000, np.uint16), photometric="minisblack", extrasamples=["unassalpha"]),
        tiff_by_tifffile(np.full((30, 40), 0.5, np.float16)),
        tiff_by_tifffile(np.full((30, 40), 0.5, np.float64)),
    ],
    ids=["16 bits colour by colour", "16 bits with alpha", "half floats", "double floats"],
)
def test_pixels_of_a_kind_that_is_not_read_are_told_as_that_and_not_as_a_damage(content: bytes) -> None:
    """Pillow reads those colour by colour as twice as many pixels of eight bits: words would lie elsewhere."""
    with pytest.raises(InvalidDocument, match=r"page 1 of the TIFF file has pixels of a kind that is not read.*8 bits"):
        opened(content, limits=LIMITS).page(0)


def test_a_compression_that_may_not_be_read_here_is_named() -> None:
    content = bytearray(tiff_by_tifffile(np.full((30, 40, 3), 200, np.uint8), photometric="rgb", metadata=None))
    at = content.index(struct.pack("<HHI", 259, 3, 1))
    content[at + 8 : at + 10] = struct.pack("<H", 50001)
    with pytest.raises(InvalidDocument, match=r"page 1 cannot be decoded: .* damaged or cut off, or .* compression, WebP"):
        opened(bytes(content), limits=LIMITS).page(0)
