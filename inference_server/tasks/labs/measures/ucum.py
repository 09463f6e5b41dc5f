"""UCUM, the code for units of measure (https://ucum.org): which texts are units, and a number of one in another.

Alone in importing ucumvert, whose grammar and table take 25 MB and half a second.
"""

from __future__ import annotations

import re
import threading
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ucumvert import PintUcumRegistry

# No unit is longer; a longer text is somebody's mistake, or worse.
_LONGEST = 64
_SYMBOL = re.compile(r"\[[^\]]*\]")
_ANNOTATION = re.compile(r"\{[^}]*\}")
# pint does not promise that threads may share a registry.
_lock = threading.Lock()


def load() -> None:
    """Read grammar and table, so that the first unit that is not common need not wait for them; blocks."""
    with _lock:
        _registry()


def is_unit(text: str) -> bool:
    """Whether UCUM knows it, in upper and lower case as it is written."""
    return _quantity(text) is not None


def in_unit(number: float, unit: str, wanted: str, *, grams_per_mole: float | None = None) -> float | None:
    """A number of one unit in another; None where they measure different things. `grams_per_mole`: of what was measured.

    What is counted in an arbitrary unit, such as `[IU]`, or of a kind that an annotation names, such as `{FEU}`, is that alone.
    """
    given, asked = _quantity(unit), _quantity(wanted)
    if given is None or asked is None or _kind(unit) != _kind(wanted):
        return None
    with _lock:
        measured = _registry().Quantity(number * given.magnitude, given.units)
        mass = None if grams_per_mole is None else _registry().Quantity(grams_per_mole, "g/mol")
        for found in (measured, *(() if mass is None else (measured / mass, measured * mass))):
            if found.is_compatible_with(asked.units):
                return float(found.to(asked.units).magnitude / asked.magnitude)
    return None


@lru_cache(maxsize=4096)
def _quantity(text: str) -> Any | None:
    """As pint knows it."""
    if not text or len(text) > _LONGEST or not text.isascii() or any(character <= " " for character in text):
        return None
    with _lock:
        try:
            return _registry().from_ucum(text)
        except Exception:
            # Its parser, its visitor and pint each raise errors of their own.
            return None


@lru_cache(maxsize=4096)
def _kind(unit: str) -> tuple[list[str], list[str]]:
    """What it counts in that no other unit can stand for."""
    symbols = [symbol for symbol in _SYMBOL.findall(unit) if (known := _quantity(symbol)) is not None and known.dimensionless]
    return sorted(symbols), sorted(set(_ANNOTATION.findall(unit)) - {"{cells}"})


@cache
def _registry() -> PintUcumRegistry:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()
