"""What stands behind each label of a card: beside it, below it, or in a column of its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from bridge.systems.cards.parsing.columns import paired
from bridge.systems.cards.parsing.digits import NPWP_DIGITS, numbers_in
from bridge.systems.cards.parsing.fitting import Fit, fit, goes_on, is_holder
from bridge.systems.cards.parsing.labels import Label, labels_in
from bridge.systems.cards.parsing.rows import Passage, Row

# Fields that may run over several rows, and over how many more.
_MORE_ROWS = {"name": 2, "birth": 1, "address": 3}
# Labels that follow a name on some card: what stands between is of the name.
_AFTER_NAMES = frozenset({"birth", "birthPlace", "birthDate", "gender", "address", "nik", "npwp"})
# A second row begins below the first, in heights of the text, or left of it where the label stands.
_MOST_INDENT = 3.0
_MOST_LEADING = 1.5
# Nor is its text so many times as high: what is written across a card is none of its rows.
_MOST_TALLER = 1.5
# So many labels without a value are a column; no card has more.
_LEAST_COLUMN = 2
_MOST_LABELS = 40
# Fields whose value may have wide gaps.
_WIDE = frozenset({"nik", "npwp", "birth", "birthDate"})
_NUMBER_BEFORE_WORDS = re.compile(r"\d[\d .,-]{8,}\d\s+(?=[^\W\d]{2})")


@dataclass(frozen=True, kw_only=True)
class Value:
    """What stands behind a label."""

    # Up to the next label, and up to the first wide gap; further rows are in the second alone.
    whole: Passage
    rows: tuple[Passage, ...]

    @property
    def text(self) -> str:
        """What it says, in all rows."""
        return " ".join(passage.text for passage in self.rows)


@dataclass
class Layout:
    """The values of a card by their labels' names, in reading order, and what stands behind no label of the vocabulary."""

    values: dict[str, list[Value]] = field(default_factory=dict)
    # Without a label, or with one that is in no list, which is then part of it.
    loose: list[Passage] = field(default_factory=list)

    def of(self, name: str) -> Sequence[Value]:
        """The values behind a label."""
        return self.values.get(name, ())

    def add(self, name: str, value: Value) -> None:
        """Put a value behind its label."""
        self.values.setdefault(name, []).append(value)


def layout_of(rows: Iterable[Row]) -> Layout:
    """Pair labels with values, over rows from top to bottom."""
    reader = _Reader()
    for row in rows:
        reader.read(row)
    reader.settle("")
    return reader.layout


@dataclass
class _Reader:
    """Reads rows from top to bottom."""

    layout: Layout = field(default_factory=Layout)
    # Labels that have no value yet, and what was found since that is behind none.
    waiting: list[str] = field(default_factory=list)
    free: list[Passage] = field(default_factory=list)
    # Whether something else was read since the labels.
    late: bool = False
    # The label whose value may go on in what is found next.
    last: str = ""

    def read(self, row: Row) -> None:
        labels = [] if self.ends_address(row) else labels_in(row)
        if not labels:
            self.free += [part for piece in Passage(row=row, start=0, end=len(row.text)).pieces() for part in _parted(piece)]
            return
        starts = [label.start for label in labels]
        ends = [label.until or start for label, start in zip(labels, [*starts[1:], len(row.text)], strict=True)]
        before = Passage(row=row, start=0, end=starts[0]).pieces()
        # A value of a column, beside which another label stands, is one of its values.
        if before and len(self.waiting) >= _LEAST_COLUMN:
            self.free += before
        else:
            self.layout.loose += before
            if self.free:
                self.settle(labels[0].name)
        behind = [(label, Passage(row=row, start=label.end, end=end).trimmed()) for label, end in zip(labels, ends, strict=True)]
        if not before and any(_fits(label.name, passage) for label, passage in behind):
            self.wait_on(self.waiting)
        for label, passage in behind:
            self.take(label, passage)

    def ends_address(self, row: Row) -> bool:
        """Whether `RW 001` is the end of an address: below its value, where no label stands."""
        if self.last != "address" or not re.match(r"R[TW]\b[^:/]*\d[^:]*$", row.text, re.IGNORECASE):
            return False
        first = self.layout.of("address")[-1].rows[0].box
        own = Passage(row=row, start=0, end=len(row.text)).box
        return first is not None and own is not None and own.left > first.left - own.height

    def take(self, label: Label, passage: Passage) -> None:
        """Keep what stands beside a label, where it fits; else the label waits for what comes."""
        self.last = ""
        pieces = passage.pieces()
        if not label.name and pieces:
            self.layout.loose.append(Passage(row=passage.row, start=label.start, end=passage.end))
        elif _fits(label.name, passage):
            self.layout.add(label.name, Value(whole=passage, rows=pieces[:1]))
            self.layout.loose += pieces[1:]
            self.last = label.name
            if label.name == "npwp":
                self.hold(list(_parted(pieces[0]))[1:])
        else:
            self.waiting = [*self.waiting, label.name][-_MOST_LABELS:]
            self.free += pieces

    def settle(self, following: str) -> None:
        """Give what was found behind no label to those that wait, or to the last value; `following`: the label that comes next."""
        pairs = paired(self.waiting, [passage.text for passage in self.free], late=self.late)
        taken = set(pairs.values())
        for label, number in pairs.items():
            self.layout.add(self.waiting[label], Value(whole=self.free[number], rows=(self.free[number],)))
        found = [(-1, self.last), *sorted((number, self.waiting[label]) for label, number in pairs.items())]
        for (start, name), (end, after) in pairwise([*found, (len(self.free), following)]):
            taken |= self.go_on(name, range(start + 1, end), after)
        numbers = [number for label, number in pairs.items() if self.waiting[label] == "npwp"]
        numbers += [number for number, passage in enumerate(self.free) if number not in taken and _is_tax_number(passage.text)]
        below = [*([0] if self.last == "npwp" else ()), *(number + 1 for number in numbers)]
        self.hold(self.free[number] for number in below if number < len(self.free) and number not in taken)
        self.layout.loose += [passage for number, passage in enumerate(self.free) if number not in taken]
        self.wait_on([name for label, name in enumerate(self.waiting) if label not in pairs])
        self.free, self.last = [], ""

    def hold(self, passages: Iterable[Passage]) -> None:
        """Keep the holder of a tax card, whose name may stand behind its number, or below it, without a label."""
        for passage in passages:
            if is_holder(passage.text):
                self.layout.add("holder", Value(whole=passage, rows=(passage,)))

    def wait_on(self, waiting: Sequence[str]) -> None:
        """What is read now comes between labels and their values: a column of them may still follow, a single one does not."""
        self.waiting = list(waiting) if len(waiting) >= _LEAST_COLUMN else []
        self.late = bool(self.waiting)

    def go_on(self, name: str, numbers: Iterable[int], following: str) -> set[int]:
        """Add further rows to the last value of a label; which they are."""
        taken: set[int] = set()
        if name not in _MORE_ROWS or (name == "name" and following not in _AFTER_NAMES):
            return taken
        value = self.layout.values[name][-1]
        for number in numbers:
            passage = self.free[number]
            below = _is_below(passage, value)
            if below is False:
                continue
            # Where a text without places ends, only a date tells that it belongs to what was before.
            is_open = below is None and not following and name != "birth"
            if is_open or len(taken) == _MORE_ROWS[name] or not goes_on(name, value.text, passage.text, placed=bool(below)):
                break
            value = replace(value, rows=(*value.rows, passage))
            taken.add(number)
        self.layout.values[name][-1] = value
        return taken


def _parted(passage: Passage) -> Iterator[Passage]:
    """A long number and the words behind it, which are two values though there is no gap between."""
    found = _NUMBER_BEFORE_WORDS.match(passage.text)
    if found:
        yield passage.part(0, found.end()).trimmed()
    yield passage.part(found.end() if found else 0, len(passage.text)).trimmed()


def _is_tax_number(text: str) -> bool:
    return any(number.alone and (number.start, number.end) == (0, len(text)) for number in numbers_in(text, NPWP_DIGITS))


def _fits(name: str, passage: Passage) -> bool:
    if name == "province":
        return True
    pieces = passage.pieces()
    # Digits may be set wide; elsewhere what stands beyond a gap is something else.
    text = passage.text if name in _WIDE else pieces[0].text if pieces else ""
    return bool(name and text) and fit(name, text) is not Fit.NOT


def _is_below(passage: Passage, value: Value) -> bool | None:
    """Whether something stands where the next row of a value would; None where the engine tells no places."""
    if passage.row.page != value.rows[0].row.page:
        return False
    box, first, last = passage.box, value.rows[0].box, value.rows[-1].box
    if box is None or first is None or last is None:
        return None
    height = last.height
    is_near = last.middle < box.middle and box.top - last.bottom < _MOST_LEADING * height
    return is_near and box.left < first.left + _MOST_INDENT * height and box.height < _MOST_TALLER * first.height
