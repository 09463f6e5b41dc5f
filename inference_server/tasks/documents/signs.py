"""Signs that are drawn alike: on lines of Latin text those are told that such text is written with.

The recogniser also learnt East Asian text, which has signs of its own, as wide as its letters, and one for °C.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from inference_server.tasks.documents.recognition import Character

_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_DEGREES = {"℃": "C", "℉": "F"}
_EAST_ASIAN = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")
_MU, _MICRO = "μ", "µ"


def latin_signs(characters: Sequence[Character]) -> Sequence[Character]:
    """The characters of a line, their signs as Latin text has them; a line with East Asian letters as it is."""
    texts = [character.text for character in characters]
    line = "".join(texts)
    if line.isascii() or any(unicodedata.name(letter, "").startswith(_EAST_ASIAN) for letter in line if not letter.isascii()):
        return characters
    around = zip(["", *texts], characters, [*texts[1:], ""], strict=False)
    return [replace(character, text=_latin(before, character.text, after)) for before, character, after in around]


def _latin(before: str, sign: str, after: str) -> str:
    if letter := _DEGREES.get(sign):
        # It is often read as the sign of degrees and then as the whole.
        return letter if before == "°" else f"°{letter}"
    # In front of a unit it is a prefix, in Greek text and in formulas a letter.
    if sign == _MU and after.isascii() and after.isalpha() and not before.isalpha():
        return _MICRO
    return _FULL_WIDTH.get(sign, sign)
