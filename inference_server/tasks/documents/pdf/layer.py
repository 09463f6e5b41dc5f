"""The text that a PDF page holds: words with their boxes, and whether it is to be trusted."""

from __future__ import annotations

import ctypes
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pypdfium2
from numpy.typing import NDArray
from pypdfium2 import raw

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.detection.orientation import Turn
from inference_server.tasks.documents.layout.reading_order import reading_order
from inference_server.tasks.documents.layout.rows import Fragment
from inference_server.tasks.documents.pdf.annotations import is_written_over
from inference_server.tasks.documents.pdf.pixels import Affine, points_to_pixels
from inference_server.tasks.documents.pdf.right_to_left import in_order_from_right, letters_from_right, line_back, mirrored
from inference_server.tasks.documents.values import Line, Quad, TextLayer, Word

# Fewer characters are a page number or a stamp on a scan.
_LEAST_CHARACTERS = 10
# More are no page that a person reads, and take too long.
_MOST_CHARACTERS = 200_000
# Of the characters, so many may be none of any language, as where a font does not say what its glyphs mean.
_MOST_GARBAGE = 0.05
# So many may be no signs at all: what they stand for, such as units and bounds in laboratory reports, is lost.
_MOST_LOST = 0.01
# What is told in their place.
_NO_SIGN = "\ufffd"
# Letters and digits; text behind a wrong encoding is mostly signs.
_LEAST_LETTERS = 0.4
# Pictures that cover more of the page show text that the layer may lack, or has from another program's reading.
_MOST_PICTURES = 0.5
# Forms within forms are looked into so deep.
_DEPTH = 5
# A gap of so many heights parts words into fragments, which may be of different columns.
_GAP_HEIGHTS = 1.5
# How far text may be from level or upright, as the sine of the angle, before it counts as slanted.
_STRAIGHT = 0.05
# A page is turned where this many times as many characters as all others want the turn, as where its picture is read.
_MOSTLY = 2.0
# Of a glyph's place in its line, below which it has no outline: pdfium then tells a thousandth of the type's size.
_NO_OUTLINE = 0.01
# In points: what is thicker has an outline at any size of type. Of most glyphs the place need not be asked for, which takes time.
_THIN = 0.5


@dataclass(frozen=True, kw_only=True)
class _Character:
    text: str
    # Bounds in points, [4, 2] corners.
    box: NDArray[np.float64]
    # Along the text, in points.
    direction: tuple[float, float]
    # Whether its font does not say what it means.
    is_garbage: bool


@dataclass(frozen=True, kw_only=True)
class _LayerWord:
    word: Word
    # Of the text, in pixels.
    height: float
    # Characters of which the font does not say what they mean.
    garbage: int
    # Whether its line is written from the right.
    is_from_right: bool

    def is_on(self, width: int, height: int) -> bool:
        """Whether its middle lies on a picture of this size."""
        x, y = self.word.polygon.mean(axis=0).tolist()
        return bool(0 <= x <= width and 0 <= y <= height)

    def turned(self, turn: Turn) -> _LayerWord:
        """On the upright page."""
        return replace(self, word=replace(self.word, polygon=turn.quad(self.word.polygon)))

    def mirrored(self, width: int) -> _LayerWord:
        """In a mirror beside a page of `width` pixels."""
        return replace(self, word=replace(self.word, polygon=mirrored(self.word.polygon, width)))


def read_layer(page: pypdfium2.PdfPage, width: int, height: int) -> TextLayer:
    """The text of a page as words on a picture of `width` × `height` pixels. Raises `InvalidDocument`."""
    textpage = page.get_textpage()
    try:
        count = textpage.count_chars()
        if count > _MOST_CHARACTERS:
            raise InvalidDocument(f"a page holds {count} characters; at most {_MOST_CHARACTERS} are read. Ask for OCR in `text_mode`.")
        affine = points_to_pixels(page, width, height)
        lines = [_words(list(line), affine) for line in _lines(textpage)]
    finally:
        textpage.close()
    # What was cut off the page is still in the file, beside what is seen of it.
    lines = [[word for word in line if word.is_on(width, height)] for line in lines]
    garbage = sum(word.garbage for line in lines for word in line)
    text = "".join(word.word.text for line in lines for word in line)
    lost = sum(_lost(line) for line in lines)
    sound = _is_text(text, garbage, lost) and _picture_share(page) <= _MOST_PICTURES and not is_written_over(page)
    turn = Turn(quarters=_quarters([word.word for line in lines for word in line]), height=height, width=width)
    upright = [[word.turned(turn) for word in line] for line in lines]
    found = tuple(turn.line_back(line) for line in _in_order(upright, height if turn.quarters % 2 else width, letters_from_right(text) > 0))
    return TextLayer(lines=found, width=width, height=height, is_sound=sound, rotation_degrees=turn.degrees)


def _in_order(lines: Sequence[Sequence[_LayerWord]], width: int, is_from_right: bool) -> list[Line]:
    """Lines in reading order on an upright page of `width` pixels; `is_from_right`: most of its text is."""
    runs = [run for line in lines for run in _runs(line)]
    if is_from_right:
        runs = [[word.mirrored(width) for word in run] for run in runs]
    found = reading_order([_fragment(run) for run in runs])
    return [line_back(line, width) for line in found] if is_from_right else list(found)


def _quarters(words: Sequence[Word]) -> int:
    """Quarter turns clockwise that put most of the text upright; 0 where none does."""
    letters = [0, 0, 0, 0]
    for word in words:
        across, down = (word.polygon[1] - word.polygon[0]).tolist()
        level = abs(across) > abs(down)
        letters[(0 if across > 0 else 2) if level else (1 if down < 0 else 3)] += len(word.text)
    most = int(np.argmax(letters))
    return most if letters[most] > _MOSTLY * (sum(letters) - letters[most]) else 0


def _lines(textpage: pypdfium2.PdfTextPage) -> Iterator[Iterator[Sequence[_Character]]]:
    """Lines as pdfium puts them together, each of words."""
    found = [_character(textpage, index) for index in range(textpage.count_chars())]
    for is_line, characters in groupby(found, lambda one: one.text not in "\r\n"):
        if is_line:
            yield (tuple(word) for spaced, word in groupby(characters, lambda one: one.text.isspace()) if not spaced)


def _character(textpage: pypdfium2.PdfTextPage, index: int) -> _Character:
    code = raw.FPDFText_GetUnicode(textpage.raw, index)
    left, bottom, right, top = textpage.get_charbox(index)
    thickness = min(right - left, top - bottom)
    if thickness <= _THIN:
        loose = textpage.get_charbox(index, loose=True)
        if thickness <= _NO_OUTLINE * max(loose[2] - loose[0], loose[3] - loose[1]):
            # Fonts whose glyphs have no outline, or that are neither in the file nor on this machine, still have bounds.
            left, bottom, right, top = loose
    matrix = raw.FS_MATRIX()
    raw.FPDFText_GetMatrix(textpage.raw, index, ctypes.byref(matrix))
    return _Character(
        # What pdfium tells of a hyphen at a line's end is no sign.
        text="-" if raw.FPDFText_IsHyphen(textpage.raw, index) == 1 else _sign(chr(code)),
        box=np.array([(left, top), (right, top), (right, bottom), (left, bottom)]),
        direction=(matrix.a, matrix.b),
        is_garbage=raw.FPDFText_HasUnicodeMapError(textpage.raw, index) == 1,
    )


def _sign(character: str) -> str:
    """Spaces and ends of lines part words, and are none; no text holds other signs of control, which not every store takes."""
    return _NO_SIGN if unicodedata.category(character) == "Cc" and not character.isspace() else character


def _words(words: Sequence[Sequence[_Character]], affine: Affine) -> list[_LayerWord]:
    is_from_right = letters_from_right("".join(one.text for word in words for one in word)) > 0
    return [_word(word, affine, is_from_right) for word in words]


def _word(characters: Sequence[_Character], affine: Affine, is_from_right: bool) -> _LayerWord:
    if is_from_right and letters_from_right("".join(one.text for one in characters)) <= 0:
        # Numbers, units and names run from the left there too; pdfium tells their parts the other way round.
        characters = sorted(characters, key=lambda one: float(one.box[0] @ np.array(characters[0].direction)))
    # Beyond the first plane pdfium tells halves of characters.
    text = "".join(one.text for one in characters).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    boxes = np.concatenate([one.box for one in characters]) @ affine[:, :2].T + affine[:, 2]
    along = affine[:, :2] @ np.array(characters[0].direction)
    length = float(np.hypot(*along))
    across, down = along / length if length else np.array([1.0, 0.0])
    quad, height = _straight(boxes, across, down) if min(abs(across), abs(down)) < _STRAIGHT else _slanted(boxes, across, down)
    word = Word(text=text, confidence=1.0, polygon=quad.astype(np.float32))
    return _LayerWord(word=word, height=height, garbage=sum(one.is_garbage for one in characters), is_from_right=is_from_right)


def _straight(points: NDArray[np.float64], across: float, down: float) -> tuple[NDArray[np.float64], float]:
    """Bounds of level or upright text, from the text's own top left."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    level = abs(across) > abs(down)
    turns = (0 if across > 0 else 2) if level else (1 if down > 0 else 3)
    return np.roll(corners, -turns, axis=0), float(bottom - top if level else right - left)


def _slanted(points: NDArray[np.float64], across: float, down: float) -> tuple[NDArray[np.float64], float]:
    """A quad along the text: upright bounds of slanted characters would cover half a page."""
    axes = np.array([(across, down), (-down, across)])
    boxes = points.reshape(-1, 4, 2)
    height = float(np.median(np.ptp(boxes, axis=1).min(axis=1)))
    middles = boxes.mean(axis=1) @ axes.T
    (left, top), (right, bottom) = middles.min(axis=0) - height / 2, middles.max(axis=0) + height / 2
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) @ axes, height


def _runs(words: Sequence[_LayerWord]) -> list[list[_LayerWord]]:
    """Words of one line that stand close together, as the detector would find them."""
    is_from_right = bool(words) and words[0].is_from_right
    if is_from_right:
        # What runs from the left within it lies on the other side: they are looked at as they lie.
        words = sorted(words, key=lambda one: _along(one, words[0]))
    runs: list[list[_LayerWord]] = []
    for word in words:
        if runs and _follows(runs[-1][-1], word):
            runs[-1].append(word)
        else:
            runs.append([word])
    return [in_order_from_right(run, lambda one: one.word.text) for run in runs] if is_from_right else runs


def _along(word: _LayerWord, first: _LayerWord) -> float:
    """How far a word lies along the line of another."""
    return float(word.word.polygon.mean(axis=0) @ (first.word.polygon[1] - first.word.polygon[0]))


def _follows(before: _LayerWord, after: _LayerWord) -> bool:
    first, second = before.word.polygon, after.word.polygon
    gap = float(np.hypot(*(second[[0, 3]].mean(axis=0) - first[[1, 2]].mean(axis=0))))
    return gap < _GAP_HEIGHTS * max(before.height, after.height)


def _fragment(run: Sequence[_LayerWord]) -> Fragment:
    first = run[0].word.polygon
    edge = first[1] - first[0]
    along = edge / max(float(np.hypot(*edge)), 1e-6)
    axes = np.array([along, (-along[1], along[0])], np.float32)
    points = np.concatenate([one.word.polygon for one in run]) @ axes.T
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    quad: Quad = (np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) @ axes).astype(np.float32)
    return Fragment(quad=quad, words=tuple(one.word for one in run))


def _lost(line: Sequence[_LayerWord]) -> int:
    """How many signs of a line are lost, but for the bullet before it: often of a font that tells nothing, and of no meaning."""
    signs = [word.word.text for word in line]
    return sum(sign.count(_NO_SIGN) for sign in (signs[1:] if signs[:1] == [_NO_SIGN] else signs))


def _is_text(text: str, garbage: int, lost: int) -> bool:
    if len(text) < _LEAST_CHARACTERS or lost > _MOST_LOST * len(text):
        return False
    garbage += sum(one == _NO_SIGN or unicodedata.category(one) in {"Cc", "Cn", "Co"} for one in text)
    letters = sum(one.isalnum() or unicodedata.category(one).startswith("M") for one in text)
    return garbage <= _MOST_GARBAGE * len(text) and letters >= _LEAST_LETTERS * len(text)


def _picture_share(page: pypdfium2.PdfPage) -> float:
    """How much of a page pictures cover, at most: where they overlap, they count twice."""
    left, bottom, right, top = page.get_bbox()
    area = 0.0
    for shape in page.get_objects(max_depth=1):
        if shape.type == raw.FPDF_PAGEOBJ_IMAGE or (shape.type == raw.FPDF_PAGEOBJ_FORM and _holds_picture(shape.raw, _DEPTH)):
            west, south, east, north = shape.get_bounds()
            area += max(0.0, min(east, right) - max(west, left)) * max(0.0, min(north, top) - max(south, bottom))
    return float(area / max((right - left) * (top - bottom), 1e-6))


def _holds_picture(form: object, depth: int) -> bool:
    for index in range(raw.FPDFFormObj_CountObjects(form)):
        part = raw.FPDFFormObj_GetObject(form, index)
        kind = raw.FPDFPageObj_GetType(part)
        if kind == raw.FPDF_PAGEOBJ_IMAGE or (kind == raw.FPDF_PAGEOBJ_FORM and depth > 0 and _holds_picture(part, depth - 1)):
            return True
    return False
