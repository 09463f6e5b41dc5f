"""Signs that are drawn alike, or nearly so: what stands around them in a word tells which one it is, however sure the recogniser was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from inference_server.tasks.documents.recognition import Character

# What is counted or measured, where it has three letters or more.
_UNITS = (
    "[munpf]?mol|mosm|m?eq|mcg|mls|grams?|litres?|liters?|cells?|copies|units?|sec|secs|seconds?|mins?|minutes?|hrs?|hours?|days?|weeks?|"
    "months?|years?|yrs|times?|points?|percent|pcs|mmhg|bpm"
)
# Words with a sign at `sign`, and what it is there.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Initials and abbreviations by letters: P.O., F.O.B., J. O.
    (re.compile(r"(?<![\w.])(?:[A-Z]\.)+(?P<sign>0)\.(?!\d)"), "O"),
    (re.compile(r"(?<![\w.])(?P<sign>0)\.(?:[A-Z]\.)+(?!\w)"), "O"),
    # A name or word that begins with a capital, unless it is a unit: nothing may be left of 0 there.
    (re.compile(rf"(?<![\w.])(?P<sign>0)(?!(?:{_UNITS})(?!\w))[a-z]{{3,}}(?!\w)"), "O"),
    # An amount of money: a letter before one that is whole is the sign of a currency, and what stands before its cents is a digit.
    (re.compile(r"(?<![\w$.,-])(?P<sign>S)\d{1,3}(?:,?\d{3})*\.\d\d(?![\w.])"), "$"),
    (re.compile(r"(?<![A-Za-z])(?:RM|Rp\.?|[$€£¥])(?P<sign>[Oo])[.,]\d\d(?!\w)"), "0"),
    # Roman numbers.
    (re.compile(r"(?<!\w)I{1,2}(?P<sign>l)(?!\w)"), "I"),
    (re.compile(r"(?<!\w)(?P<sign>l)I{1,2}(?!\w)"), "I"),
)


def told_by_context(characters: Sequence[Character]) -> Sequence[Character]:
    """The characters of a word, a sign replaced where what stands around it leaves no doubt; its confidence stays."""
    text = "".join(character.text for character in characters)
    # What the recogniser answers for one step may be several characters of text.
    if len(text) != len(characters):
        return characters
    told = list(characters)
    for pattern, sign in _RULES:
        for match in pattern.finditer(text):
            place = match.start("sign")
            told[place] = replace(told[place], text=sign, others=())
    return told
