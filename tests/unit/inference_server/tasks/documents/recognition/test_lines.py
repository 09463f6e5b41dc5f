"""Of the ways to read an upright quad, which counts."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.recognition.lines import ReadQuad, counts_turned
from inference_server.tasks.documents.recognition.recogniser import Character, Crop


@pytest.mark.parametrize(
    ("standing", "confidence", "turned", "counts"),
    [
        pytest.param("-", 0.9, "1", False, id="a dash on its side is a 1"),
        pytest.param("", 0.0, "1", False, id="of a dash that was not read"),
        pytest.param("-", 0.3, "1", False, id="or hardly"),
        pytest.param("1", 0.9, "一", False, id="a 1 on its side is a dash"),
        pytest.param("", 0.0, "一", False, id="of a stroke that was not read"),
        pytest.param("5", 0.9, "S", False, id="a digit that was read"),
        pytest.param("5", 0.9, "", False, id="nothing"),
        pytest.param("", 0.0, "+", True, id="a sign that was not read"),
        pytest.param("x", 0.3, "X", True, id="a letter that was hardly read"),
        pytest.param("十", 0.8, "+", True, id="a sign that was read as an ideograph"),
        pytest.param("", 0.0, "√", True, id="a tick"),
    ],
)
def test_one_letter_counts_turned_where_it_was_not_read_as_it_stands(standing: str, confidence: float, turned: str, counts: bool) -> None:
    crop = Crop(image=np.full((48, 30, 3), 255, np.uint8), to_page=np.eye(3))
    outline = np.array([[0, 0], [30, 0], [30, 48], [0, 48]], np.float32)
    read = ReadQuad(outline=outline, crop=crop, characters=characters_of(standing), confidence=confidence)
    assert counts == counts_turned(read, characters_of(turned))


def characters_of(text: str) -> tuple[Character, ...]:
    return tuple(Character(text=letter, confidence=0.9, x=15) for letter in text)
