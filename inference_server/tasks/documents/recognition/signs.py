"""Signs that are drawn alike: on lines of Latin text those are told that such text is written with.

The recogniser also learnt East Asian text, which has signs of its own, as wide as its letters, and one for °C.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from inference_server.tasks.documents.recognition.recogniser import Character

_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {"￠": "¢", "￡": "£", "￥": "¥"}
_DEGREES = {"℃": "C", "℉": "F"}
_EAST_ASIAN = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "HANGUL")
# The sign of degrees and the letter of ℃ lie so many pixels left and right of its middle.
_DEGREES_ASIDE = 6.0
_MU, _MICRO = "μ", "µ"
_MONEY = re.compile(r"(?:[$€£¥]|\bRM|\bRp\.?) ?[\d,]+\.\d$")


def latin_signs(characters: Sequence[Character]) -> Sequence[Character]:
    """The characters of a line, their signs as Latin text has them; a line with East Asian letters as it is."""
    texts = [character.text for character in characters]
    line = "".join(texts)
    if line.isascii() or is_east_asian(line):
        return characters
    characters = (
        [_digit_of(line[:index], character) for index, character in enumerate(characters)] if len(line) == len(texts) else characters
    )
    texts = [character.text for character in characters]
    around = zip(["", *texts], characters, [*texts[1:], ""], strict=False)
    return [told for before, character, after in around for told in _latin(before, character, after)]


def is_east_asian(text: str) -> bool:
    """Whether it has letters of East Asian scripts."""
    return not text.isascii() and any(unicodedata.name(letter, "").startswith(_EAST_ASIAN) for letter in text if not letter.isascii())


def _digit_of(before: str, character: Character) -> Character:
    """An amount of money has no degrees: the last digit of its cents, where `before` is one without it."""
    if character.text not in _DEGREES or not _MONEY.search(before):
        return character
    digits = [(likelihood, text) for text, likelihood in character.others if text.isdecimal()]
    likelihood, digit = max(digits, default=(character.confidence, "0"))
    return replace(character, text=digit, confidence=likelihood, others=())


def _latin(before: str, character: Character, after: str) -> list[Character]:
    if letter := _DEGREES.get(character.text):
        whole = replace(character, text=letter)
        # It is often read as the sign of degrees and then as the whole.
        if before == "°":
            return [whole]
        degrees = replace(character, text="°", x=character.x - _DEGREES_ASIDE, space_after=0.0)
        return [degrees, replace(whole, x=character.x + _DEGREES_ASIDE)]
    return [replace(character, text=_latin_sign(before, character.text, after))]


def _latin_sign(before: str, sign: str, after: str) -> str:
    # In front of a unit it is a prefix, in Greek text and in formulas a letter.
    if sign == _MU and after.isascii() and after.isalpha() and not before.isalpha():
        return _MICRO
    return _FULL_WIDTH.get(sign, sign)
