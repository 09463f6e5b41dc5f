"""Signs of East Asian text on lines that have none of its letters."""

from __future__ import annotations

import pytest

from inference_server.tasks.documents.recognition.recogniser import Character
from inference_server.tasks.documents.recognition.signs import latin_signs


def told(text: str) -> str:
    return "".join(character.text for character in latin_signs([Character(text=letter, confidence=1.0, x=0.0) for letter in text]))


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ("36,7 °℃", "36,7 °C"),
        ("36,7 ℃", "36,7 °C"),
        ("98.6℉", "98.6°F"),
        ("￥1,200", "¥1,200"),
        ("7,2 10^3/μL", "7,2 10^3/µL"),
        ("71 μmol/L ≥ 44", "71 µmol/L ≥ 44"),
        ("TEL：603-9021（Ext．4）", "TEL:603-9021(Ext.4)"),
    ],
)
def test_signs_are_those_of_latin_text(read: str, expected: str) -> None:
    assert expected == told(read)


@pytest.mark.parametrize("text", ["体温：36.7℃", "ｶﾅ：５", "〇：５", "μήνα", "σ = 2, μ = 5", "CRP < 5 mg/L", "±²³é–"])
def test_other_text_is_as_it_was_read(text: str) -> None:
    assert text == told(text)


@pytest.mark.parametrize(
    ("read", "expected"),
    [("$337.0℃", "$337.00"), ("RM 1,337.0℃", "RM 1,337.00"), ("Rp. 37.0℃", "Rp. 37.00"), ("37.0℃", "37.0°C"), ("$5 at 37℃", "$5 at 37°C")],
)
def test_an_amount_of_money_has_no_degrees(read: str, expected: str) -> None:
    assert expected == told(read)


def test_the_digit_of_an_amount_is_the_likeliest_that_the_recogniser_thought_of() -> None:
    read = [Character(text=letter, confidence=0.9, x=24.0 * index) for index, letter in enumerate("$7.5")]
    read.append(Character(text="℃", confidence=0.6, x=96.0, others=(("0", 0.1), ("C", 0.2), ("8", 0.15))))
    assert ("8", 0.15) == [(each.text, each.confidence) for each in latin_signs(read)][-1]


def test_a_sign_that_becomes_two_stands_on_both_sides_of_its_middle() -> None:
    read = [Character(text=letter, confidence=0.9, x=24.0 * index, space_after=0.5) for index, letter in enumerate("7℃")]
    assert [("7", 0.0, 0.5), ("°", 18.0, 0.0), ("C", 30.0, 0.5)] == [(each.text, each.x, each.space_after) for each in latin_signs(read)]
