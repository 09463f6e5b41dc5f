"""What a page of a PDF comes to with all forms that it draws, told before pdfium reads one: it reads a form anew each time.

Forms may draw forms (ISO 32000-1, 8.10), and a file of some hundred bytes whose forms draw each other twice holds pdfium, and what memory
there is, for ever. Not told are forms that are packed otherwise than by deflate, and those of encrypted files.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeAlias

from inference_server.errors import InvalidDocument
from inference_server.tasks.documents.pdf.inflation import LIMIT, Sums
from inference_server.tasks.documents.pdf.objects import KEPT, objects, objects_within, plain, unpacked_stream

# Without forms nothing is drawn anew. A name may be written in numbers, which none of these is in a usual file.
_ANY_FORM = re.compile(rb"/Form\b|/Subtype\s*/\w*#")
_NAME = rb"/([^\s/<>\[\](){}%]+)"
_DRAWN = re.compile(rb"/([^\s/<>\[\](){}%]++)\s*+Do(?![^\s/<>\[\](){}%])")
_ENTRY = re.compile(_NAME + rb"\s+(\d{1,10})\s+\d{1,5}\s+R\b")
_RESOURCES = re.compile(rb"/Resources\s+(\d{1,10})\s+\d{1,5}\s+R\b")
_CONTENTS = re.compile(rb"/Contents\s*(?:\[([^\[\]]*)\]|(\d{1,10}\s+\d{1,5}\s+R\b))")
_REFERENCE = re.compile(rb"(\d{1,10})\s+\d{1,5}\s+R\b")
_DRAWABLE = re.compile(rb"/XObject\s*(?:<<([^<>]*)>>|(\d{1,10})\s+\d{1,5}\s+R\b)")
_NO_CONTENT = re.compile(rb"/Subtype\s*/(?:Image|XML|Type1C|CIDFontType0C|OpenType)\b|/Length[123]\b|/Type\s*/(?:XRef|Metadata)\b")
_PACKED_OBJECTS = re.compile(rb"/Type\s*/ObjStm\b")
# So deep pdfium follows forms within forms.
_DEEPEST = 40
# Bytes that a form counts beside its content each time that it is drawn: what pdfium keeps of it takes more.
_A_FORM = 64
_PIECE = 64 * 1024
# Of more than so many dictionaries, or objects, for a name, all of that name are meant.
_MOST_TABLES = 16
# Names that one stream may draw.
_MOST_NAMES = 10_000
# Objects by name.
_Table: TypeAlias = Mapping[bytes, set[int]]
# Number of an object, its size, and what it draws how often: objects, or what has a name anywhere.
_Stream: TypeAlias = tuple[int, int, Sequence[tuple[int, set[int] | bytes]]]


@dataclass(frozen=True, kw_only=True)
class _Content:
    """A stream that may draw: how long it is, what it draws by name and how often, and its dictionary."""

    size: int
    drawn: Mapping[bytes, int]
    dictionary: bytes


def check_expansion(content: bytes, *, most_bytes: int, until: float = math.inf) -> None:
    """Raise `InvalidDocument` where a stream is longer than that with the forms that it draws, each as often as it is drawn; blocks.

    Raises `TimeoutError` where it takes longer, on the clock of `time.monotonic`.
    """
    if not _ANY_FORM.search(content):
        return
    sums = Sums.of(content, most_bytes, until)
    texts: dict[int, list[bytes]] = {}
    contents: dict[int, list[_Content]] = {}
    for number, dictionary, start in objects(content, sums):
        texts.setdefault(number, []).append(dictionary)
        if start is None or _NO_CONTENT.search(dictionary):
            continue
        unpacked = unpacked_stream(content, start, most_bytes, sums)
        if _PACKED_OBJECTS.search(dictionary):
            for inner, text in objects_within(dictionary, unpacked, sums):
                texts.setdefault(inner, []).append(text)
        else:
            content_of = _Content(size=len(unpacked), drawn=_drawn(unpacked, sums), dictionary=dictionary)
            contents.setdefault(number, []).append(content_of)
    _check(_Drawings(texts, contents, sums), most_bytes, sums)


class _Drawings:
    """Which streams draw which."""

    def __init__(self, texts: Mapping[int, Sequence[bytes]], contents: Mapping[int, Sequence[_Content]], sums: Sums) -> None:
        self._texts = texts
        self._sums = sums
        self._drawable = contents.keys()
        # By the number of an object that is one, or that has some: many dictionaries share them.
        self._tables: dict[int, _Table] = {}
        self._resources: dict[int, Sequence[_Table]] = {}
        # By the names of all dictionaries together, for streams of which it is not clear whose resources they have.
        self.anywhere = self._all()
        # By the number of a page's content, which has the resources of its page.
        self._pages: dict[int, list[_Table]] = {}
        self._unclear: set[int] = set()
        for text in (text for several in texts.values() for text in several):
            sums.check_time()
            self._take_page(text)
        self._take_lists()
        self.streams: Sequence[_Stream] = [
            (number, each.size, list(self._drawn_by(number, each))) for number, several in contents.items() for each in several
        ]

    def _drawn_by(self, number: int, content: _Content) -> Iterator[tuple[int, set[int] | bytes]]:
        self._sums.check_time()
        tables: Sequence[_Table] = ()
        if content.drawn:
            of_page = () if number in self._unclear else self._pages.get(number, ())
            tables = self._tables_of(content.dictionary) or of_page
        for name, count in content.drawn.items():
            named = [table[name] for table in tables if name in table] if len(tables) <= _MOST_TABLES else []
            found = set().union(*named) if max(map(len, named), default=0) <= _MOST_TABLES else set()
            if 0 < len(found) <= _MOST_TABLES:
                if drawable := found & self._drawable:
                    yield count, drawable
            elif name in self.anywhere:
                yield count, name

    def _all(self) -> _Table:
        together: dict[bytes, set[int]] = {}
        numbers: set[int] = set()
        for found in (found for several in self._texts.values() for text in several for found in _DRAWABLE.finditer(text)):
            self._sums.check_time()
            if found[2]:
                numbers.add(int(found[2]))
            else:
                _put(found[1], together)
        for text in (text for number in numbers for text in self._texts.get(number, ())):
            _put(text, together)
        return together

    def _tables_of(self, text: bytes) -> Sequence[_Table]:
        """What a dictionary names as drawable, itself or by the resources that it refers to; no more than tell that there are too many."""
        referred = (table for number in set(_RESOURCES.findall(text)) for table in self._referred(int(number)))
        return list(islice(chain(self._inline(text), referred), _MOST_TABLES + 1))

    def _inline(self, text: bytes) -> Iterator[_Table]:
        for inline, number in (found.groups() for found in _DRAWABLE.finditer(text)):
            yield self._table(int(number)) if number else _put(inline, {})

    def _table(self, number: int) -> _Table:
        if number not in self._tables:
            self._tables[number] = _put(b" ".join(self._texts.get(number, ())), {})
        return self._tables[number]

    def _referred(self, number: int) -> Sequence[_Table]:
        if number not in self._resources:
            tables = chain.from_iterable(map(self._inline, self._texts.get(number, ())))
            self._resources[number] = list(islice(tables, _MOST_TABLES + 1))
        return self._resources[number]

    def _take_page(self, text: bytes) -> None:
        tables: Sequence[_Table] | None = None
        for listed in _CONTENTS.finditer(text):
            tables = self._tables_of(text) if tables is None else tables
            for reference in _REFERENCE.finditer(listed[1] or listed[2] or b""):
                self._take_content(int(reference[1]), tables)

    def _take_lists(self) -> None:
        """Contents of a page may be a list that is an object of its own."""
        for number, tables in list(self._pages.items()):
            for text in self._texts.get(number, ()):
                for reference in _REFERENCE.finditer(text) if b"<<" not in text else ():
                    self._take_content(int(reference[1]), () if number in self._unclear else tables)

    def _take_content(self, number: int, tables: Sequence[_Table]) -> None:
        if number not in self._texts:
            return
        known = self._pages.setdefault(number, [])
        # What one page draws with resources of its own, another may with those of its parents.
        if tables and len(known) + len(tables) <= _MOST_TABLES:
            known += tables
        else:
            self._unclear.add(number)


def _drawn(unpacked: bytes, sums: Sums) -> Mapping[bytes, int]:
    """What a stream draws by name, and how often; found in pieces, between which other threads go on."""
    drawn: Counter[bytes] = Counter()
    start = 0
    while start < len(unpacked):
        sums.check_time()
        # What is drawn has one slash, and begins with it.
        end = unpacked.rfind(b"/", start + 1, start + _PIECE)
        if end < 0:
            end = unpacked.find(b"/", start + _PIECE)
        end = end if end >= 0 else len(unpacked)
        drawn.update(plain(found[1]) for found in _DRAWN.finditer(unpacked, start, end))
        if len(drawn) > _MOST_NAMES:
            raise InvalidDocument(
                f"a stream of the PDF draws more than {_MOST_NAMES} different parts. Print it to a PDF anew, or send its pages as images.",
                limit=LIMIT,
            )
        start = end
    sums.take_unpacked(KEPT * len(drawn))
    return drawn


def _put(text: bytes, named: dict[bytes, set[int]]) -> _Table:
    """Add the objects that a dictionary names."""
    for found in _ENTRY.finditer(text):
        named.setdefault(plain(found[1]), set()).add(int(found[2]))
    return named


def _check(drawings: _Drawings, most_bytes: int, sums: Sums) -> None:
    # By object: the longest so far, with forms followed a step deeper each time.
    lengths: dict[int, int] = {}
    for number, size, drawn in drawings.streams:
        if not drawn:
            lengths[number] = max(lengths.get(number, 0), size + _A_FORM)
    rest = [stream for stream in drawings.streams if stream[2]]
    names = {drawable for _, _, drawn in rest for _, drawable in drawn if isinstance(drawable, bytes)}
    for _ in range(_DEEPEST):
        by_name = {name: max(lengths.get(each, 0) for each in drawings.anywhere[name]) for name in names}
        deeper = lengths.copy()
        for number, size, drawn in rest:
            sums.check_time()
            length = size + _A_FORM
            for count, drawable in drawn:
                length += count * (by_name[drawable] if isinstance(drawable, bytes) else max(lengths.get(each, 0) for each in drawable))
            # What draws nothing is as long as it is: of that another check has the limit.
            if length > most_bytes:
                raise InvalidDocument(
                    f"a page of the PDF draws its parts so often that they come to more than {most_bytes} bytes. "
                    "Print it to a PDF anew, or send its pages as images.",
                    limit=LIMIT,
                )
            deeper[number] = max(deeper.get(number, 0), length)
        if deeper == lengths:
            return
        rest, lengths = _unsettled(rest), deeper


def _unsettled(streams: Sequence[_Stream]) -> list[_Stream]:
    """Those that may draw one of them still, by a name or by its number; of the others the length is known."""
    numbers = {number for number, _, _ in streams}
    return [one for one in streams if any(isinstance(drawable, bytes) or not numbers.isdisjoint(drawable) for _, drawable in one[2])]
