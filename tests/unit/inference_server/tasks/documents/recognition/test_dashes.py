"""Dashes that stand alone are told by their shape."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.recognition.dashes import dash_in
from inference_server.tasks.documents.recognition.recogniser import Character, Crop


def crop_with(left: int, top: int, width: int, height: int, crop_width: int = 36) -> Crop:
    image = np.full((48, crop_width, 3), 250, np.uint8)
    image[top : top + height, left : left + width] = 20
    return Crop(image=image, to_page=np.eye(3))


def test_a_level_stroke_in_the_middle_is_a_dash() -> None:
    dash = dash_in(crop_with(8, 22, 18, 5), [])
    assert dash is not None
    assert ("-", 17.0, 1.0) == (dash.text, dash.x, dash.confidence)


@pytest.mark.parametrize(
    "crop",
    [
        pytest.param(crop_with(8, 38, 18, 4), id="an underscore"),
        pytest.param(crop_with(15, 12, 5, 26), id="an upright stroke"),
        pytest.param(crop_with(14, 22, 6, 6), id="a dot"),
        pytest.param(crop_with(0, 22, 36, 4), id="a rule that runs on"),
        pytest.param(crop_with(8, 22, 40, 5, crop_width=72), id="a part of a line"),
        pytest.param(crop_with(0, 0, 0, 0), id="nothing"),
    ],
)
def test_anything_else_is_none(crop: Crop) -> None:
    assert dash_in(crop, []) is None


def test_two_strokes_are_none() -> None:
    crop = crop_with(8, 16, 18, 4)
    crop.image[26:30, 8:26] = 20
    assert dash_in(crop, []) is None


@pytest.mark.parametrize(
    ("read", "is_dash"), [("", True), ("一", True), ("-", True), ("=", False), ("+", False), ("1", False), ("--", False)]
)
def test_what_was_read_tells_apart_what_runs_into_one_stroke(read: str, is_dash: bool) -> None:
    """As the two strokes of an equals sign do where letters are small."""
    characters = [Character(text=letter, confidence=0.8, x=17) for letter in read]
    assert is_dash == (dash_in(crop_with(8, 19, 18, 11), characters) is not None)
