"""Words of letters that stand in cells."""

from __future__ import annotations

import numpy as np
import pytest

from inference_server.tasks.documents.detection.cells import CellRow, Rule
from inference_server.tasks.documents.detection.orientation import Turn
from inference_server.tasks.documents.recognition.cell_words import fragments_of
from inference_server.tasks.documents.recognition.lines import ReadQuad
from inference_server.tasks.documents.recognition.recogniser import Character, Crop
from inference_server.tasks.documents.recognition.spelling import Lexicon, Speller

EDGE = 48


def words_in_cells(text: str) -> list[str]:
    """One letter a cell; a space is an empty one."""
    width = EDGE * len(text)
    rules = tuple(Rule(left=EDGE * at, right=EDGE * at, top=0, bottom=EDGE) for at in range(len(text) + 1))
    read = ReadQuad(
        outline=np.array([[0, 0], [width, 0], [width, EDGE], [0, EDGE]], np.float32),
        crop=Crop(image=np.full((EDGE, width, 3), 255, np.uint8), to_page=np.eye(3)),
        characters=tuple(Character(text=each, confidence=1.0, x=EDGE * (at + 0.5)) for at, each in enumerate(text) if each != " "),
        confidence=1.0,
    )
    row = CellRow(rules=rules, filled=tuple(each != " " for each in text))
    speller = Speller(Lexicon(likelihood={"old": -5.0}), [])
    [fragment] = fragments_of([read], [row], Turn(quarters=0, height=EDGE, width=width), speller, 0.5)
    return [word.text for word in fragment.words]


@pytest.mark.parametrize(("text", "words"), [("VERY 0LD", ["VERY", "OLD"]), ("NE1 0LD", ["NE1", "0LD"])])
def test_an_empty_cell_parts_words_which_tell_of_each_other(text: str, words: list[str]) -> None:
    assert words == words_in_cells(text)
