"""Numbers as text, whole arrays at a time: slides have millions of them, and Python's own text of each took most of the time of writing.

Texts lie in fields of one width. What a text does not fill is zero bytes, anywhere in its field; `without_gaps` takes them out.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
from numpy.typing import NDArray

# UTF-8 with gaps: any shape, and at last the width of a field.
Text = NDArray[np.uint8]
# Fields that are looked at in one row.
_ROWS = 64
# Digits that are looked up at once.
_GROUP = 4
_GROUPED = 10**_GROUP
# Decimals that are tried, and the numbers below which so many are told apart: 15 digits in all, which any float keeps.
_DECIMALS = ((4, 1e8), (8, 1e7))
# Below it JSON's encoder writes an exponent.
_LEAST_PLAIN = 1e-4
# Numbers times the power of ten are rounded by it below this, where their error is far below what is taken for a tie.
_MOST_ROUNDED, _TIE = 2.0**30, 1e-5
# How a group of digits is written: as it is, without zeros before it, or without zeros behind it. Of 0 one digit stays, or none.
_WHOLE, _LEADING, _FIRST, _TRAILING, _LAST = range(5)


def json_numbers(values: NDArray[np.float64]) -> Text:
    """What JSON's encoder writes of each number."""
    values = np.ascontiguousarray(values)
    for decimals, most in _DECIMALS:
        if not (values.size and (values >= 0).all() and (values < most).all() and not np.signbit(values).any()):
            break
        scaled = np.rint(values * 10.0**decimals)
        # A quotient is rounded once, and so is the number that JSON's text stands for: the text is that of these decimals.
        if (scaled / 10.0**decimals == values).all():
            return _plain(scaled.astype(np.int64), decimals)
    return _fields([json.dumps(value) for value in values.reshape(-1).tolist()], values.shape)


def hexadecimals(numbers: NDArray[np.int64], digits: int) -> Text:
    """Whole numbers below 16**digits with their leading zeros, at most 16 digits."""
    text = np.frombuffer(numbers.astype(">i8").tobytes().hex().encode(), np.uint8)
    return text.reshape(*numbers.shape, 16)[..., 16 - digits :]


def rounded(values: NDArray[np.float64], decimals: int) -> NDArray[np.float64]:
    """Each as Python's `round` has it."""
    scaled = values * 10.0**decimals
    found: NDArray[np.float64] = np.rint(scaled) / 10.0**decimals
    # By the number itself, where its multiple is too coarse to tell to which side it goes.
    with np.errstate(invalid="ignore"):
        unsure = ~(np.abs(scaled) < _MOST_ROUNDED) | (np.abs(scaled - np.floor(scaled) - 0.5) < _TIE)
    found[unsure] = [round(value, decimals) for value in values[unsure].tolist()]
    return found


def fields(texts: list[str]) -> Text:
    """Any texts but zero bytes, each in a field."""
    return _fields(texts, (len(texts),))


def without_gaps(text: Text) -> bytes:
    """All fields one after the other."""
    return text.tobytes().replace(b"\0", b"")


def _plain(scaled: NDArray[np.int64], decimals: int) -> Text:
    """Numbers that are so many ten-thousandths, or their like, not below zero."""
    power = 10**decimals
    whole, rest = scaled // power, scaled % power
    before = max(-(-len(str(whole.max())) // _GROUP), 1)
    text = np.empty((*scaled.shape, _GROUP * before + 1 + decimals), np.uint8)
    for group in range(before):
        more = whole // _GROUPED ** (before - 1 - group)
        kind = np.where(more >= _GROUPED, _WHOLE, _FIRST if group == before - 1 else _LEADING)
        _put(text, _GROUP * group, kind, more % _GROUPED)
    text[..., _GROUP * before] = ord(".")
    for group in range(decimals // _GROUP):
        left = rest // _GROUPED ** (decimals // _GROUP - 1 - group)
        behind = rest % _GROUPED ** (decimals // _GROUP - 1 - group)
        kind = np.where(behind > 0, _WHOLE, _TRAILING if group else _LAST)
        _put(text, _GROUP * (before + group) + 1, kind, left % _GROUPED)
    small = (scaled > 0) & (scaled < _LEAST_PLAIN * power)
    if small.any():
        text[small] = 0
        told = _exponents(power)[scaled[small]]
        text[small, : told.shape[1]] = told
    # What is a gap in all of them costs most of the time that taking gaps out does.
    return text[..., _used(text.reshape(-1, text.shape[-1]))]


def _put(text: Text, start: int, kind: NDArray[np.int64], group: NDArray[np.int64]) -> None:
    # Four characters at once, wherever they lie.
    text[..., start : start + _GROUP].view(np.uint32)[..., 0] = _groups()[kind * _GROUPED + group]


def _used(fields: Text) -> NDArray[np.bool_]:
    """Which places of some fields hold a character in any. Rows are short, and looked at many in one: a tenth of the time."""
    width, whole = fields.shape[1], len(fields) // _ROWS * _ROWS
    together = np.bitwise_or.reduce(fields[:whole].reshape(-1, _ROWS * width), axis=0).reshape(_ROWS, width)
    used: NDArray[np.bool_] = np.bitwise_or.reduce(np.concatenate([together, fields[whole:]]), axis=0) > 0
    return used


@cache
def _groups() -> NDArray[np.uint32]:
    """Four characters, by kind and number."""
    numbers = np.arange(_GROUPED)[:, None]
    places = 10 ** np.arange(_GROUP - 1, -1, -1)
    digits = (numbers // places % 10 + ord("0")).astype(np.uint8)
    leading = np.where(numbers >= places, digits, 0)
    trailing = np.where(numbers % (places * 10) > 0, digits, 0)
    first, last = leading.copy(), trailing.copy()
    first[0, -1] = last[0, 0] = ord("0")
    return np.stack([digits, leading, first, trailing, last]).astype(np.uint8).view(np.uint32).reshape(-1)


@cache
def _exponents(power: int) -> Text:
    """Texts of the numbers that are so small that they have one."""
    return fields([json.dumps(number / power) for number in range(round(_LEAST_PLAIN * power))])


def _fields(texts: list[str], shape: tuple[int, ...]) -> Text:
    encoded = np.array([text.encode() for text in texts], np.bytes_)
    return encoded.view(np.uint8).reshape(*shape, encoded.dtype.itemsize)
