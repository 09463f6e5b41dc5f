"""A printed x stands on the line, the sign of multiplication above it."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.recognition.crosses import with_printed_x
from inference_server.tasks.documents.recognition.recogniser import Character, Crop


def line_of(foot: int, *, others: tuple[tuple[str, float], ...] = (("x", 0.3),), beside: str = "2") -> tuple[list[Character], Crop]:
    """A digit, a sign whose ink ends in the row before `foot`, and a digit; digits' ink ends before row 38, and is 26 pixels high."""
    image = np.full((48, 96, 3), 250, np.uint8)
    for left in (10, 70):
        image[12:38, left : left + 14] = 20
    image[foot - 16 : foot, 40:54] = 20
    sign = Character(text="×", confidence=0.7, x=47, others=others)
    space = Character(text=" ", confidence=1.0, x=32)
    return [Character(text=beside, confidence=1.0, x=17), space, sign, Character(text=beside, confidence=1.0, x=77)], Crop(
        image=image, to_page=np.eye(3)
    )


def test_a_sign_that_stands_on_the_line_is_the_x_that_was_thought_of() -> None:
    told = with_printed_x(*line_of(38))
    assert ("2 x2", 0.3) == ("".join(character.text for character in told), told[2].confidence)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line_of(34), id="above the line"),
        pytest.param(line_of(38, others=()), id="without a thought of an x"),
        pytest.param(line_of(38, beside="a"), id="beside letters"),
    ],
)
def test_anything_else_stays_a_sign(line: tuple[list[Character], Crop]) -> None:
    assert "×" == with_printed_x(*line)[2].text


def test_a_sign_whose_line_shows_no_ink_stays() -> None:
    characters, crop = line_of(38)
    assert "×" == with_printed_x(characters, Crop(image=np.full_like(crop.image, 250), to_page=np.eye(3)))[2].text


def test_a_sign_beside_digits_that_reach_into_the_margin_of_their_line_stays() -> None:
    characters, crop = line_of(38)
    lower = np.full_like(crop.image, 250)
    # Six rows down, digits end at row 43 and the sign at row 40; rows from 42 on are margin.
    lower[6:] = crop.image[:-6]
    lower[41:44, 40:54] = 250
    assert "×" == with_printed_x(characters, Crop(image=lower, to_page=np.eye(3)))[2].text
