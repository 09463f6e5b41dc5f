"""Text as it is read."""

from __future__ import annotations

from collections.abc import Iterable

from inference_server.tasks.documents.values import DocumentSummary, PageResult


class TextWriter:
    """A form feed between pages, as `pdftotext` has it."""

    def __init__(self) -> None:
        self._pages = 0

    def page(self, page: PageResult) -> Iterable[bytes]:
        """The page's lines."""
        self._pages += 1
        return [("\f" if self._pages > 1 else "").encode(), page.text.encode(errors="replace")]

    def end(self, summary: DocumentSummary) -> Iterable[bytes]:
        """Nothing more."""
        return []

    def close(self) -> None:
        """Nothing is held."""
