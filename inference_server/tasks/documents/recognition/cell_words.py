"""Words of letters that stand in cells: neighbours belong together, and an empty cell parts them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from inference_server.tasks.documents.detection.cells import CellRow
from inference_server.tasks.documents.detection.orientation import Turn
from inference_server.tasks.documents.layout.rows import Fragment, fragment_of
from inference_server.tasks.documents.recognition.lines import ReadQuad
from inference_server.tasks.documents.recognition.recogniser import LINE_HEIGHT, Character
from inference_server.tasks.documents.recognition.spelling import Speller
from inference_server.tasks.documents.recognition.words import word_of, words_of
from inference_server.tasks.documents.values import Quad, Word

# Where more of a row's cells hold several letters, or where they count upwards, each cell is a word of its own: they are choices.
_MOST_CROWDED = 0.15
# Letters that stand far apart look like those of full width that East Asian texts have.
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}


@dataclass(frozen=True, kw_only=True)
class _Letter:
    character: Character
    # On the upright page.
    quad: Quad
    cell: int


def fragments_of(found: Sequence[ReadQuad], rows: Sequence[CellRow], turn: Turn, speller: Speller, least: float) -> list[Fragment]:
    """What was read with a confidence of `least` and more, as fragments of the upright page. `rows`: of the page as it came."""
    fragments: list[Fragment] = []
    letters: list[list[_Letter]] = [[] for _ in rows]
    for quad in found:
        number = next((number for number, row in enumerate(rows) if _lies_in(quad, row, turn)), None)
        if number is not None:
            letters[number] += _letters(quad, rows[number], turn, least)
        elif quad.confidence >= least:
            fragments.append(fragment_of(quad.outline, words_of(quad.characters, quad.crop, speller)))
    for some, row in zip(letters, rows, strict=True):
        if words := _words(some, row, speller):
            fragments.append(Fragment(quad=_around([word.polygon for word in words]), words=tuple(words)))
    return fragments


def _lies_in(quad: ReadQuad, row: CellRow, turn: Turn) -> bool:
    x, y = turn.back(quad.outline).mean(axis=0).tolist()
    return row.cell_at(x, y) is not None


def _letters(read: ReadQuad, row: CellRow, turn: Turn, least: float) -> list[_Letter]:
    letters = []
    for character in read.characters:
        quad = read.crop.quad(character.x - LINE_HEIGHT / 4, character.x + LINE_HEIGHT / 4)
        cell = row.cell_at(*turn.back(quad).mean(axis=0).tolist())
        if cell is not None and character.confidence >= least and not character.text.isspace():
            letter = replace(character, text=character.text.translate(_FULL_WIDTH))
            letters.append(_Letter(character=letter, quad=quad, cell=cell))
    return letters


def _words(letters: Sequence[_Letter], row: CellRow, speller: Speller) -> list[Word]:
    ordered = sorted(letters, key=lambda letter: float(letter.quad[:, 0].mean()))
    cells = [list(some) for _, some in itertools.groupby(ordered, key=lambda letter: letter.cell)]
    if _are_choices(cells, row):
        return [_word(cell, speller) for cell in cells]
    words: list[list[_Letter]] = []
    for cell in cells:
        if words and _is_one_word(words[-1][-1].cell, cell[0].cell, row):
            words[-1] += cell
        else:
            words.append(cell)
    texts = ["".join(letter.character.text for letter in word) for word in words]
    around = zip(words, ["", *texts], [*texts[1:], ""], strict=False)
    return [_word(word, speller, before, after) for word, before, after in around]


def _are_choices(cells: Sequence[Sequence[_Letter]], row: CellRow) -> bool:
    texts = ["".join(letter.character.text for letter in cell) for cell in cells]
    if sum(len(text) > 1 for text in texts) > _MOST_CROWDED * len(texts):
        return True
    numbers = [int(text) for text in texts if text.isascii() and text.isdecimal()]
    return all(row.filled) and len(numbers) == len(row.filled) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _is_one_word(first: int, second: int, row: CellRow) -> bool:
    """Whether no empty cell lies between two; a letter that was not read is none."""
    return all(row.filled[min(first, second) : max(first, second) + 1])


def _word(letters: Sequence[_Letter], speller: Speller, before: str = "", after: str = "") -> Word:
    return word_of([letter.character for letter in letters], _around([letter.quad for letter in letters]), speller, before, after)


def _around(quads: Sequence[Quad]) -> Quad:
    """From the left side of the first to the right side of the last."""
    return np.array([quads[0][0], quads[-1][1], quads[-1][2], quads[0][3]], np.float32)
