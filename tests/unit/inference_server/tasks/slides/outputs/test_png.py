"""PNG of our own making, opened by others."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from inference_server.tasks.slides.outputs import png


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 4), (5, 1, 3), (300, 411, 3), (64, 64, 4)])
def test_other_readers_find_the_same_pixels(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    content = png.encode(pixels)
    with Image.open(io.BytesIO(content)) as opened:
        assert "RGBA"[: shape[2]] == opened.mode
        np.testing.assert_array_equal(pixels, np.asarray(opened))
    others = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(pixels, others[..., [2, 1, 0, 3][: shape[2]]])


def test_a_damaged_file_is_told_by_its_sums() -> None:
    content = bytearray(png.encode(np.zeros((40, 40, 3), np.uint8)))
    content[20] ^= 1
    with pytest.raises((OSError, SyntaxError)), Image.open(io.BytesIO(bytes(content))) as opened:
        opened.load()
