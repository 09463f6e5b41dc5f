"""Ink is told from paper where a part of a line is dim: in a shadow, and where a part has a ground of its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from inference_server.tasks.documents.images.ink import ink_of

# Words as strokes 4 pixels wide, 12 apart, in the middle of a line.
STROKES = np.zeros((48, 480), np.bool_)
STROKES[14:34, [column for column in range(20, 460) if column % 12 < 4]] = True
PART = slice(12, 230)


def line_of(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(gray[:, :, None], 3, axis=2)


def test_print_in_a_shadow_is_ink() -> None:
    gray = np.where(STROKES, 20, 240).astype(np.uint8)
    gray[:, :230] = gray[:, :230] * 0.45
    assert np.array_equal(STROKES, ink_of(line_of(gray)))


@pytest.mark.parametrize("stroke", [4, 8])
def test_upright_strokes_that_fill_a_line_are_no_shadow(stroke: int) -> None:
    """As in `list` and `ill`, whose columns are ink for the most part; what is pale in them would be lit away."""
    strokes = [column for column in range(20, 200) if column % 16 < stroke]
    gray = np.full((48, 480), 250, np.uint8)
    gray[8:40, strokes] = 20
    gray[30:32, 20:200] = 130
    ink = ink_of(line_of(gray))
    assert ink[30:32, 20:200].all()
    assert ink[8:40, strokes].all()
    assert 32 * len(strokes) + 2 * (180 - len(strokes)) == ink.sum()


@pytest.mark.parametrize("ground", [100, 140, 170])
def test_light_print_on_a_coloured_part_is_no_shadow(ground: int) -> None:
    """Its gaps are found where its strokes are: lit evenly, ground and strokes would be one white."""
    gray = np.where(STROKES, 20, 250).astype(np.uint8)
    gray[:, PART] = np.where(STROKES, 250, ground)[:, PART]
    ink = ink_of(line_of(gray))
    assert np.array_equal(~STROKES[14:34, PART], ink[14:34, PART])
    assert np.array_equal(STROKES[:, 240:], ink[:, 240:])
