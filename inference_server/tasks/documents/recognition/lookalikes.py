"""Signs that are drawn alike, or nearly so: what stands around them in a word tells which one it is, however sure the recogniser was."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from inference_server.tasks.documents.recognition.recogniser import Character
from inference_server.tasks.documents.recognition.spelling import LETTERS_OF_WORD, Speller

# Words with a sign at `sign`, and what it is there.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    # Initials and abbreviations by letters: P.O., F.O.B., J. O.
    (re.compile(r"(?<![\w.])(?:[A-Z]\.)+(?P<sign>0)\.(?!\d)"), "O"),
    (re.compile(r"(?<![\w.])(?P<sign>0)\.(?:[A-Z]\.)+(?!\w)"), "O"),
    # An amount of money: a letter before one that is whole is the sign of a currency, and what stands before its cents is a digit. With
    # two digits before the point it may be an injury's code (ICD-10: S52.50).
    (re.compile(r"(?<![\w$.,-])(?P<sign>S)(?!\d\d\.)\d{1,3}(?:,?\d{3})*\.\d\d(?![\w.])"), "$"),
    (re.compile(r"(?<![A-Za-z])(?:RM|Rp\.?|[$€£¥])(?P<sign>[Oo])[.,]\d\d(?!\w)"), "0"),
    # Roman numbers.
    (re.compile(r"(?<!\w)I{1,2}(?P<sign>l)(?!\w|-[a-z])"), "I"),
    (re.compile(r"(?<!\w)(?P<sign>l)I{1,2}(?!\w)"), "I"),
    (re.compile(r"(?<!\w)II(?P<sign>1)(?!\w)"), "I"),
    # International units: µIU/mL, IU/L.
    (re.compile(r"(?<![A-Za-z])[µumk]?(?P<sign>l)U(?!\w)"), "I"),
    # A street, in Indonesian.
    (re.compile(r"(?<![\w.])J(?P<sign>I)\.(?!\w\.)"), "l"),
    # Oxygen and carbon dioxide in blood and breath, haemoglobin A1c, salt, and the stage of a tumour.
    (re.compile(r"(?<!\w)(?:(?:S[ap]|Pa|Fi|PaC|pa?C)(?=02)|HC(?=03))(?P<sign>0)[23](?![.-]?\w)"), "O"),
    (re.compile(r"(?<!\w)HbA(?P<sign>[lI])c(?!\w)"), "1"),
    (re.compile(r"(?<!\w)NaC(?P<sign>I)(?!\w)"), "l"),
    (re.compile(r"(?<!\w)[acpry]*T(?:[0-4][a-d]?|is|X)N(?P<sign>O)(?=M[01OX])"), "0"),
    (re.compile(r"(?<!\w)[acpry]*T(?:[0-4][a-d]?|is|X)N[0-3OX][a-c]?M(?P<sign>O)(?!\w)"), "0"),
)
# A street, or a number such as that of a question: what the recogniser thought of tells.
_NUMBERED_STREET = re.compile(r"\W?J1\.")
# A word whose first letter may be an I.
_L_FIRST = re.compile(r"(?<![\w.@/\\])(?P<sign>l)(?P<rest>[A-Za-z]{3,})(?![\w@/\\]|\.\w)")
# A diagnosis begins with a letter; it follows the name of its system, or others. What a unit or a word of a sentence follows is none.
_DIAGNOSIS = re.compile(
    r"\bICD[ -]?10(?:-CM)?\s*(?:[Cc]odes?|[Kk]ode)?\s*[:=(]\s*(?:[A-Za-z\d]\d\d(?:\.\d{1,2})?\s*[,;]\s*)*"
    r"(?P<sign>[01])\d\d(?:\.\d{1,2})?[^\w\s%]*$"
)
# An article of Italian, and a pronoun of French, at the start of a line or a sentence that goes on; Illinois before its ZIP code.
_ARTICLE, _SENTENCE_END, _ZIP = "Il", (".", "!", "?", ":"), re.compile(r"\d{5}(?!\d)")
_QUOTES, _BULLETS = "\"'“”„«»‹›(", " -–•*·"
# Korean names: a family's before a given one, and the first half of one.
_FAMILY, _GIVEN = re.compile(r"\b(?:Kim|Lee|Park|Choi)$"), re.compile(r"\b(?:Jong|Myung)$")
# A run of letters and digits with a 0; what holds it may be an address, in which any sign may stand.
_WITH_ZERO = re.compile(r"(?<![^\W_])(?=[^\W_]*0)[^\W_]+(?![^\W_])")
_ADDRESS = re.compile(r"@|://|www\.", re.IGNORECASE)
# What is counted or measured.
_UNITS = re.compile(
    "[munpf]?mol|mosm|m?eq|mcg|mls|mmhg|k?cal|m?bar|psi|ft|pts?|hm|ng|rd|grams?|litres?|liters?|cells?|copies|units?|pcs|times?|points?|percent|"
    "[mnuµ]s|[mµuk]a|[kmh]?pa|jours?|d[ií]as|unidad(?:es)?|giorn[oi]|gocc(?:ia|e)|compress[ae]|mes[ei]|ann[oi]|volt[ae]|capsul[ae]|pezzi|settiman[ae]|"
    "gouttes?|semaines?|mois|heures?|meses|semanas?|horas?|gramos?|"
    "tagen?|wochen?|monate?n?|jahre?n?|stunden?|minuten?|tropfen|tabletten?|"
    "bpm|secs?|seconds?|mins?|minutes?|hrs?|hours?|days?|weeks?|months?|years?|yrs|rb|mil[iy]ar",
    re.IGNORECASE,
)
# A name, of letters that may be one; no hexadecimal number.
_NAME = re.compile(r"0(?!x[a-f]+$)(?=[a-z]*[aeiouy])[a-z]{4,}")
# So many of a word are letters, beside their share of it.
_LEAST_LETTERS = 2
# Postcodes of two words, Britain's and Canada's.
_POSTCODES = re.compile(r"\W*[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\W*|\W*[A-Z]\d[A-Z] \d[A-Z]\d\W*")


def told_by_context(characters: Sequence[Character], speller: Speller, before: str = "", after: str = "") -> Sequence[Character]:
    """The characters of a word, a sign replaced where what stands around it leaves no doubt; its confidence stays.

    `before`: what stands before it on its line; `after`: the word behind it.
    """
    text = "".join(character.text for character in characters)
    # What the recogniser answers for one step may be several characters of text.
    if len(text) != len(characters) or _is_article(text, before, after):
        return characters
    told = list(text)
    for pattern, sign in _RULES:
        for match in pattern.finditer(text):
            told[match.start("sign")] = sign
    if _NUMBERED_STREET.match(text) and any(other == "l" for other, _ in characters[text.index("1")].others):
        told[text.index("1")] = "l"
    if (first := _L_FIRST.search(text)) and not _ADDRESS.search(text) and _is_known_with_an_i(first, speller):
        told[first.start("sign")] = "I"
    if "ICD" in f"{before}{text}" and not after[:1].islower() and (diagnosis := _DIAGNOSIS.search(f"{before} {text}")):
        told[diagnosis.start("sign") - len(before) - 1] = "O" if diagnosis["sign"] == "0" else "I"
    if "0" in text and not (_ADDRESS.search(text) or in_postcode(text, before, after)):
        for match in _WITH_ZERO.finditer(text):
            told[slice(*match.span())] = _with_letters(match, speller) or told[slice(*match.span())]
    return [
        character if character.text == sign else replace(character, text=sign, others=())
        for character, sign in zip(characters, told, strict=True)
    ]


def in_postcode(text: str, before: str, after: str) -> bool:
    """Whether a word and one beside it are a postcode of Britain or Canada. `before`, `after`: as for `told_by_context`."""
    return any(_POSTCODES.fullmatch(pair) for pair in (f"{before.rpartition(' ')[2]} {text}", f"{text} {after}"))


def _is_article(text: str, before: str, after: str) -> bool:
    """Whether it is one, Illinois, or a part of a Korean name."""
    if text.strip(_QUOTES) != _ARTICLE:
        return False
    starts = not before.strip(_BULLETS) or before.endswith(_SENTENCE_END)
    is_name = _GIVEN.search(before) or (_FAMILY.search(before) and after[:1].isupper())
    return bool(is_name or (after and (starts or _ZIP.match(after))))


def _is_known_with_an_i(match: re.Match[str], speller: Speller) -> bool:
    """Whether a word is known so, and not as it was read."""
    return speller.knows(f"I{match['rest']}") and not speller.knows(match["sign"] + match["rest"])


def _with_letters(match: re.Match[str], speller: Speller) -> str:
    """A word whose O was read as 0; empty for anything else, such as a code, or a number and its unit."""
    token = match.group()
    if token[0] == "0" and _UNITS.fullmatch(token[1:]):
        return ""
    letters = sum(map(str.isalpha, token))
    spelled = token.replace("0", "O" if any(map(str.isupper, token[1:])) or token[0] == "0" else "o")
    if letters >= max(_LEAST_LETTERS, LETTERS_OF_WORD * len(token)) and spelled.isalpha() and speller.knows(spelled):
        return spelled
    is_number = match.start() > 0 and match.string[match.start() - 1] in ".,:/-"
    return spelled if _NAME.fullmatch(token) and not is_number and speller.is_strange(token[1:]) else ""
