"""How long the items of a list have waited, which tell no time."""

from __future__ import annotations

from dataclasses import dataclass

# So many are kept; of more every other one is forgotten, and the age gets so much coarser.
_MOST_MARKS = 64


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """An item that was the last of its list."""

    item: bytes
    # How many stood before it. It only gets nearer to the head, but for what is given back: further behind it is another asking.
    before: int
    # By the server's clock, in ms.
    seen_at: int


class ListAges:
    """Remembers which item came last at each look. The oldest of them that is still there tells how long the head has waited at least."""

    def __init__(self) -> None:
        self._marks: list[_Mark] = []

    @property
    def asked(self) -> list[bytes | int]:
        """What is to be looked for, the oldest first: each item, and how many may stand before it."""
        return [part for mark in self._marks for part in (mark.item, mark.before)]

    def looked(self, *, found: int, last: bytes, length: int, now: int) -> int:
        """Take note of a look; returns the age of the head in ms: a lower bound, which is short by a look's distance at most.

        `found`: the first of what was asked that is still there, from 1; 0 for none. `now`: by the server's clock, in ms.
        """
        self._marks = self._marks[found - 1 :] if found else []
        if length and not (self._marks and self._marks[-1].item == last):
            self._marks.append(_Mark(item=last, before=length - 1, seen_at=now))
        if len(self._marks) > _MOST_MARKS:
            self._marks = self._marks[::2]
        return now - self._marks[0].seen_at if self._marks else 0
