"""Words of letters that stand in cells: neighbours belong together, and an empty cell parts them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from inference_server.tasks.documents.cells import CellRow
from inference_server.tasks.documents.lines import ReadQuad
from inference_server.tasks.documents.orientation import Turn
from inference_server.tasks.documents.recognition import LINE_HEIGHT, Character
from inference_server.tasks.documents.rows import Fragment, fragment_of
from inference_server.tasks.documents.spelling import Speller
from inference_server.tasks.documents.values import Quad, Word
from inference_server.tasks.documents.words import words_of


@dataclass(frozen=True, kw_only=True)
class _Letter:
    character: Character
    # On the upright page.
    quad: Quad
    cell: int


def fragments_of(found: Sequence[ReadQuad], rows: Sequence[CellRow], turn: Turn, speller: Speller) -> list[Fragment]:
    """What was read, as fragments of the upright page. `rows`: of the page as it came."""
    fragments: list[Fragment] = []
    letters: list[list[_Letter]] = [[] for _ in rows]
    for quad in found:
        placed = [_placed(character, quad, rows, turn) for character in quad.characters] if rows else []
        if not any(placed):
            fragments.append(fragment_of(quad.outline, words_of(quad.characters, quad.crop, speller)))
            continue
        for place in placed:
            if place:
                letters[place[0]].append(place[1])
        rest = [character for character, place in zip(quad.characters, placed, strict=True) if not place]
        if words := words_of(rest, quad.crop, speller):
            fragments.append(Fragment(quad=_around([word.polygon for word in words]), words=tuple(words)))
    for some in letters:
        if words := _words(some, speller):
            fragments.append(Fragment(quad=_around([word.polygon for word in words]), words=tuple(words)))
    return fragments


def _placed(character: Character, read: ReadQuad, rows: Sequence[CellRow], turn: Turn) -> tuple[int, _Letter] | None:
    """The row and the letter, where it stands in a cell."""
    if character.text.isspace():
        return None
    quad = read.crop.quad(character.x - LINE_HEIGHT / 4, character.x + LINE_HEIGHT / 4)
    x, y = turn.back(quad).mean(axis=0).tolist()
    for number, row in enumerate(rows):
        if (cell := row.cell_at(x, y)) is not None:
            # Letters that stand far apart look like those of full width that East Asian texts have.
            text = unicodedata.normalize("NFKC", character.text)
            return number, _Letter(character=replace(character, text=text), quad=quad, cell=cell)
    return None


def _words(letters: Sequence[_Letter], speller: Speller) -> list[Word]:
    words: list[list[_Letter]] = []
    for letter in sorted(letters, key=lambda letter: float(letter.quad[:, 0].mean())):
        if words and abs(letter.cell - words[-1][-1].cell) <= 1:
            words[-1].append(letter)
        else:
            words.append([letter])
    return [_word(word, speller) for word in words]


def _word(letters: Sequence[_Letter], speller: Speller) -> Word:
    read = [letter.character for letter in letters]
    mended = speller.mended(read)
    text, read_text = ("".join(character.text for character in characters) for characters in (mended, read))
    return Word(
        text=text,
        confidence=fmean(character.confidence for character in mended),
        polygon=_around([letter.quad for letter in letters]),
        read_text=read_text if read_text != text else "",
    )


def _around(quads: Sequence[Quad]) -> Quad:
    """From the left side of the first to the right side of the last."""
    return np.array([quads[0][0], quads[-1][1], quads[-1][2], quads[0][3]], np.float32)
