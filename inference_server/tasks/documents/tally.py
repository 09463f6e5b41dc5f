"""What a document's pages add up to."""

from __future__ import annotations

import numpy as np

from inference_server.errors import DeadlineExceeded, InvalidDocument
from inference_server.tasks.documents.pages import Pages
from inference_server.tasks.documents.values import DocumentSummary, PageResult


class Tally:
    """Sums up pages as they come."""

    def __init__(self) -> None:
        self.failed = 0
        # Of those, pages whose turn did not come.
        self.kept_waiting = 0
        self.words = 0
        self.first_error = ""
        # In the order of their first use.
        self.models: dict[str, None] = {}
        self._confidence = 0.0

    def count(self, page: PageResult) -> None:
        """One more page."""
        if page.error:
            self.failed += 1
            self.first_error = self.first_error or page.error
        confidences = [word.confidence for line in page.lines for word in line.words]
        self.words += len(confidences)
        self._confidence += float(np.sum(confidences))

    def error(self) -> InvalidDocument | DeadlineExceeded:
        """Why no page could be read."""
        if self.kept_waiting == self.failed:
            return DeadlineExceeded(
                f"{self.first_error} Others kept it waiting: it may be read when less is to do.", limit="document_seconds"
            )
        return InvalidDocument(self.first_error)

    def summary(self, pages: Pages, seconds: float) -> DocumentSummary:
        """What is told of the whole document; `seconds`: that it took."""
        return DocumentSummary(
            page_count=pages.page_count,
            failed_pages=self.failed,
            media_type=pages.media_type,
            mean_confidence=self._confidence / self.words if self.words else 0.0,
            models=tuple(self.models),
            duration_seconds=seconds,
        )
