"""Marks that stand alone: specks are no text, and short dashes are dashes."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.layout.rows import Fragment
from inference_server.tasks.documents.recognition.lines import ReadQuad
from inference_server.tasks.documents.recognition.recogniser import Character, Crop
from inference_server.tasks.documents.recognition.strays import with_dashes, without_marks, without_specks_of
from inference_server.tasks.documents.values import Line, Word

QUAD = np.array([[0, 0], [9, 0], [9, 9], [0, 9]], np.float32)


def read(text: str, width: int = 30) -> ReadQuad:
    characters = tuple(Character(text=letter, confidence=0.8, x=5) for letter in text)
    return ReadQuad(
        outline=QUAD, crop=Crop(image=np.zeros((48, width, 3), np.uint8), to_page=np.eye(3)), characters=characters, confidence=0.8
    )


def line(text: str) -> Line:
    return Line(text=text, confidence=0.8, polygon=QUAD, words=words(text))


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(text=word, confidence=0.8, polygon=QUAD) for word in text.split())


def texts(found: list[ReadQuad]) -> list[str]:
    return ["".join(character.text for character in quad.characters) for quad in with_dashes(found)]


@pytest.mark.parametrize("sign", ["一", "ー", "_", "–", "-"])
def test_a_short_dash_alone_is_one_on_a_page_of_latin_text(sign: str) -> None:
    assert ["Rent", "-"] == texts([read("Rent"), read(sign)])


def test_one_may_be_a_letter_on_a_page_of_east_asian_text() -> None:
    assert ["合計", "一"] == texts([read("合計"), read("一")])


def test_a_rule_that_is_long_and_dashes_within_text_stay() -> None:
    assert ["_", "A–B"] == texts([read("_", width=90), read("A–B")])


def test_specks_beside_text_are_left_out() -> None:
    fragments = [Fragment(quad=QUAD, words=words(text)) for text in ("Rent", ".", "·.", "", ":", "-", '"', "''", ",,", "...", "7")]
    kept = [" ".join(word.text for word in fragment.words) for fragment in without_specks_of(fragments)]
    assert ["Rent", ":", "-", '"', "''", ",,", "...", "7"] == kept


def test_a_line_of_nothing_but_a_mark_or_two_is_left_out() -> None:
    lines = [line(text) for text in (":", ". :", "·.", "'", "...", "- 3 -", "7", '"', "'' ''", ",,")]
    assert ["...", "- 3 -", "7", '"', "'' ''", ",,"] == [kept.text for kept in without_marks(lines)]


@pytest.mark.parametrize("text", ["-", "--", "---", "- -", "- - -", "- - - -", "–"])
def test_dashes_that_are_all_of_a_line_stay(text: str) -> None:
    assert [text] == [kept.text for kept in without_marks([line(text)])]
