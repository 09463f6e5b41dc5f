"""Labels that were read one after the other, and their values after them: a column of each, or a value below its label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

from bridge.systems.cards.parsing.fitting import Fit, fit, goes_on, is_name

# How much a value that surely fits weighs against one that may, and what one costs that nothing is found for.
_WEIGHTS = {Fit.SURELY: 3.0, Fit.MAYBE: 1.5}
_LEFT_OUT = 0.25
# How many values are looked at for each label.
_MOST_AHEAD = 3
# Where other things were read between labels and values, so many values must surely fit.
_LEAST_SURE = 2
# An address has so many rows beside its last.
_MOST_ROWS = 3


def paired(labels: Sequence[str], values: Sequence[str], *, late: bool) -> Mapping[int, int]:
    """Which value belongs to which label, by their places; `late`: something else was read between the two.

    Both are taken in their order so that as much as possible fits; then, where an engine read the foot of a column before its head, what
    is left. A value that any words would be is taken where it follows its label at once, or beside one that surely fits.
    """
    found: dict[int, int] = {}
    while True:
        open_labels = [label for label in range(len(labels)) if label not in found]
        open_values = [value for value in range(min(len(values), _MOST_AHEAD * len(labels))) if value not in found.values()]
        best = _best(labels, values, open_labels, open_values)
        sure = {label: value for label, value in best.items() if _fit(labels[label], values[value]) is Fit.SURELY}
        if len(sure) < (1 if found else _LEAST_SURE if late else 0):
            return found
        begun = {0: 0} if not late and not found and best.get(0) == 0 else {}
        credible = {**sure, **begun}
        if not credible:
            return found
        found |= credible
        _chain(found, best.items().__contains__)
        _chain(found, partial(_may_fit, labels, values))
        _begin(found, labels, values)


def _begin(found: dict[int, int], labels: Sequence[str], values: Sequence[str]) -> None:
    """Let an address that was found by what comes after it begin with its first row."""
    for label, value in found.items():
        for before in range(value - 1, max(-1, value - 1 - _MOST_ROWS), -1):
            is_of_it = labels[label] == "address" and before not in found.values() and goes_on("address", "", values[before], placed=False)
            if not is_of_it or _fit(labels[label], values[before]) is Fit.NOT:
                break
            found[label] = before


def _chain(found: dict[int, int], may_be: Callable[[tuple[int, int]], bool]) -> None:
    """Add pairs that follow or go before one that is found, without anything between."""
    for step in (1, -1):
        for label, value in sorted(found.items(), reverse=step < 0):
            label, value = label + step, value + step
            while label not in found and value not in found.values() and may_be((label, value)):
                found[label] = value
                label, value = label + step, value + step


def _best(labels: Sequence[str], values: Sequence[str], open_labels: Sequence[int], open_values: Sequence[int]) -> Mapping[int, int]:
    @cache
    def best(first_label: int, first_value: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        if first_label == len(open_labels) or first_value == len(open_values):
            return 0.0, ()
        label, value = open_labels[first_label], open_values[first_value]
        skipped = (best(first_label, first_value + 1), best(first_label + 1, first_value))
        options = [(points - _LEFT_OUT, pairs) for points, pairs in skipped]
        fits = _fit(labels[label], values[value])
        if fits is not Fit.NOT:
            points, pairs = best(first_label + 1, first_value + 1)
            options.insert(0, (points + _WEIGHTS[fits], ((label, value), *pairs)))
        return max(options, key=lambda option: option[0])

    return dict(best(0, 0)[1])


def _may_fit(labels: Sequence[str], values: Sequence[str], pair: tuple[int, int]) -> bool:
    label, value = pair
    return 0 <= label < len(labels) and 0 <= value < len(values) and _fit(labels[label], values[value]) is not Fit.NOT


def _fit(label: str, value: str) -> Fit:
    return Fit.NOT if label == "name" and not is_name(value) else fit(label, value)
