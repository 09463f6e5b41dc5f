"""What a writer of files is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import BinaryIO, Protocol, TypeAlias

from inference_server.tasks.documents.values import DocumentSummary, PageResult

# Of frames of pages with their lines, so many bytes, the file with them.
LayOver: TypeAlias = Callable[[BinaryIO, int], Awaitable[BinaryIO]]


class OutputFormat(StrEnum):
    """A file that can be made, by the ending of its name."""

    JSON = "json"
    TEXT = "txt"
    HOCR = "hocr"
    ALTO = "alto.xml"
    SEARCHABLE_PDF = "pdf"
    TSV = "tsv"


@dataclass(frozen=True, kw_only=True)
class Original:
    """The document itself."""

    content: bytes = field(repr=False)
    media_type: str
    # Of a PDF: lays text over its pages; see `PdfPages.laid_over`.
    lay_over: LayOver | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class FileChunk:
    """A piece of a file; those of a name, in order, are the file."""

    name: str
    media_type: str
    # Of the data in the file, in bytes.
    offset: int
    data: bytes
    # Whether the file ends here.
    last: bool = False
    # Why the file could not be written to its end, in its last piece; empty when it is whole.
    error: str = ""


class Writer(Protocol):
    """Writes one file. Blocks: call it in threads, one call at a time. What it yields, in order, is the file.

    Raises `InvalidDocument` while it is iterated, when the original does not allow the file.
    """

    def page(self, page: PageResult) -> Iterable[bytes]:
        """What a page adds; pages come in order. A page that could not be read keeps its place where the format has places."""

    def end(self, summary: DocumentSummary) -> Iterable[bytes]:
        """What ends the file."""

    def close(self) -> None:
        """Free what it holds."""
