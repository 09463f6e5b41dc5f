"""Numbers on cards: what was taken for letters in them is mended, and nowhere else."""

from __future__ import annotations

import re

# What digits are often taken for, and as what.
_LOOKALIKES = str.maketrans("OoQDIl|!ZSsBG", "0000111125586")
_LETTERS = str.maketrans("01|!58", "OIIISB")
# A digit, or what one may have been taken for.
DIGIT_LIKE = r"[0-9OoQDIl|!ZSsBG]"
_RUN = re.compile(r"[\w|!.\-]{10,}")
_NPWP = re.compile(r"(?<!\d)\d{2}\.?\d{3}\.?\d{3}\.?\d-?\d{3}\.?\d{3}(?!\d)")


def mended(text: str, *, to_letters: bool = False) -> str:
    """A number with its digits, or a word with its letters."""
    return text.translate(_LETTERS if to_letters else _LOOKALIKES)


def digits_of(text: str, count: int) -> str:
    """The first number of exactly so many digits; empty when there is none."""
    # Groups with spaces between are one number, where there are not more digits than it has.
    joined = text.replace(" ", "") if sum(map(str.isdigit, text)) <= count else text
    found = re.search(rf"(?<!\d)\d{{{count}}}(?!\d)", _runs_mended(joined))
    return found.group() if found else ""


def npwp_in(text: str) -> tuple[str, int, int] | None:
    """The first tax number of 15 digits, as printed but mended, and where it stands."""
    found = _NPWP.search(_runs_mended(text))
    return (found.group(), *found.span()) if found else None


def grouped_npwp(number: str) -> str:
    """A tax number of 15 digits as the platform has it: NN.NNN.NNN.N-NNN.NNN."""
    digits = re.sub(r"\D", "", number)
    return f"{digits[:2]}.{digits[2:5]}.{digits[5:8]}.{digits[8]}-{digits[9:12]}.{digits[12:]}"


def _runs_mended(text: str) -> str:
    """Runs that are mostly digits, with what was taken for letters mended; as long as the text."""
    return _RUN.sub(lambda run: mended(run.group()) if _is_number(run.group()) else run.group(), text)


def _is_number(run: str) -> bool:
    return sum(character.isdigit() for character in run) * 2 > len(run)
