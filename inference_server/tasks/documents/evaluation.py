"""How well documents are read: error rates of characters and words, and the words found, against a text that is known."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from rapidfuzz.distance import Levenshtein

from inference_server.errors import InvalidDocument, InvalidInput
from inference_server.scheduler.port import Caller
from inference_server.tasks.documents.reader import DocumentReader, DocumentRequest
from inference_server.tasks.documents.truth import KnownDocument
from inference_server.tasks.documents.values import PageResult

_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class PageFigures:
    """How well one page was read, or a whole document whose text is not known by page."""

    # File name of the document.
    document: str
    # From 1; 0 for all pages of the document together.
    page: int
    # Insertions, deletions and replacements that make the read text the known one, and the length of the known one.
    character_edits: int
    characters: int
    word_edits: int
    words: int
    # Of the words of letters a to z and digits, order aside, 0 to 1.
    bag_f1: float
    # Why the page, or one of the pages, could not be read; empty when all were.
    error: str = ""

    @property
    def character_error_rate(self) -> float:
        """Edits for each character of the known text."""
        return _rate(self.character_edits, self.characters)

    @property
    def word_error_rate(self) -> float:
        """Edits for each word of the known text."""
        return _rate(self.word_edits, self.words)


@dataclass(frozen=True, kw_only=True)
class DocumentFigures:
    """How well documents were read."""

    pages: tuple[PageFigures, ...]

    @property
    def character_error_rate(self) -> float:
        """Edits of all pages for each character of all known texts."""
        return _rate(sum(page.character_edits for page in self.pages), sum(page.characters for page in self.pages))

    @property
    def word_error_rate(self) -> float:
        """Edits of all pages for each word of all known texts."""
        return _rate(sum(page.word_edits for page in self.pages), sum(page.words for page in self.pages))

    @property
    def mean_character_error_rate(self) -> float:
        """Mean over the pages, short and long alike."""
        return sum(page.character_error_rate for page in self.pages) / len(self.pages)

    @property
    def bag_f1(self) -> float:
        """Mean over the pages."""
        return sum(page.bag_f1 for page in self.pages) / len(self.pages)


async def evaluate(
    reader: DocumentReader, documents: Sequence[KnownDocument], caller: Caller, progress: Callable[[int], None]
) -> DocumentFigures:
    """Read the documents as the service does, in reading order; `progress` gets the count of those done.

    A page that cannot be read counts as one without text, and is told. Raises `InvalidInput`, and what `Inference.infer` raises.
    """
    pages: list[PageFigures] = []
    for number, document in enumerate(documents, 1):
        pages += await _evaluated(reader, document, caller)
        progress(number)
    return DocumentFigures(pages=tuple(pages))


async def _evaluated(reader: DocumentReader, document: KnownDocument, caller: Caller) -> list[PageFigures]:
    name = document.path.name
    try:
        content = await asyncio.to_thread(document.path.read_bytes)
        pages = await _pages(reader, content, caller)
    except OSError as error:
        raise InvalidInput(f"{document.path} cannot be read ({error.strerror}).") from error
    except InvalidDocument as error:
        return [page_figures(text, "", document=name, page=number, error=str(error)) for number, text in _numbered(document)]
    if not document.is_by_page:
        error_text = next((page.error for page in pages if page.error), "")
        return [page_figures(document.texts[0], "\n".join(page.text for page in pages), document=name, page=0, error=error_text)]
    if document.may_end_blank:
        document = replace(document, texts=document.texts + ("",) * (len(pages) - len(document.texts)))
    if len(pages) != len(document.texts):
        raise InvalidInput(f"{document.path} has {len(pages)} page(s) and the text beside it {len(document.texts)}; expected as many.")
    return [
        page_figures(text, page.text, document=name, page=number, error=page.error)
        for (number, text), page in zip(_numbered(document), pages, strict=True)
    ]


def _numbered(document: KnownDocument) -> list[tuple[int, str]]:
    return list(enumerate(document.texts, int(document.is_by_page)))


async def _pages(reader: DocumentReader, content: bytes, caller: Caller) -> list[PageResult]:
    async with aclosing(reader.read(DocumentRequest(content=content), caller)) as results:
        return [result async for result in results if isinstance(result, PageResult)]


def page_figures(known: str, read: str, *, document: str, page: int, error: str = "") -> PageFigures:
    """Compare two texts: case aside, and any white space is one space."""
    right, found = _plain(known), _plain(read)
    return PageFigures(
        document=document,
        page=page,
        character_edits=Levenshtein.distance(right, found),
        characters=len(right),
        word_edits=Levenshtein.distance(right.split(), found.split()),
        words=len(right.split()),
        bag_f1=bag_f1(right, found),
        error=error,
    )


def bag_f1(known: str, read: str) -> float:
    """F1 of the words, each as often as it is there; 1 when neither text has any."""
    right, found = Counter(_WORD.findall(_plain(known))), Counter(_WORD.findall(_plain(read)))
    words = right.total() + found.total()
    return 2 * (right & found).total() / words if words else 1.0


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _rate(edits: int, length: int) -> float:
    return edits / length if length else float(edits > 0)
