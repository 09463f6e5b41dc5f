"""Many short lists of numbers, kept one after another in one array, so that hundreds of them are looked up at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Lists:
    """Lists of numbers. Safe to use from several threads."""

    def __init__(self, values: NDArray[np.int32], lengths: NDArray[np.integer[Any]]) -> None:
        """`values`: of all lists, one after another; `lengths`: of each list."""
        self._values = values
        self._lengths = lengths
        self._starts = np.cumsum(lengths) - lengths

    @classmethod
    def by_key(cls, keys: NDArray[np.integer[Any]], count: int) -> Lists:
        """Of each key below `count`, the places at which it stands in `keys`, rising."""
        return cls(np.argsort(keys, kind="stable").astype(np.int32), np.bincount(keys, minlength=count))

    @classmethod
    def of_each(cls, lists: Iterable[Iterable[int]]) -> Lists:
        """Of lists of Python's."""
        kept = [list(each) for each in lists]
        return cls(np.array([value for each in kept for value in each], np.int32), np.array([len(each) for each in kept], np.int64))

    def of(self, numbers: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int32], NDArray[np.integer[Any]]]:
        """The values of some lists, one list after another, and how long each is."""
        lengths = self._lengths[numbers]
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        return self._values[np.repeat(self._starts[numbers] - ends + lengths, lengths) + np.arange(total)], lengths
