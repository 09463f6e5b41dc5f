"""Files of XML 1.0: text as it takes it, and a writer that goes by page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from xml.sax.saxutils import escape as _escape
from xml.sax.saxutils import quoteattr

from inference_server.tasks.documents.values import DocumentSummary, PageResult

# What XML 1.0 has no way to write.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Two dashes would end a comment.
_DASH_BEFORE_DASH = re.compile("-(?=-)")


def text(value: str) -> str:
    """As the content of an element."""
    return _escape(_FORBIDDEN.sub("\ufffd", value))


def attribute(value: str) -> str:
    """As an attribute, with its quotes."""
    return quoteattr(_FORBIDDEN.sub("\ufffd", value))


def comment(value: str) -> str:
    """As a comment."""
    return f"<!-- {_DASH_BEFORE_DASH.sub('- ', text(value))} -->"


class MarkupWriter:
    """A head, a part for each page, and an end; a document without pages has both all the same."""

    def __init__(self, *, head: str, page: Callable[[PageResult], Iterable[str]], end: str) -> None:
        self._head = head
        self._page = page
        self._end = end

    def page(self, page: PageResult) -> Iterable[bytes]:
        """The page's part; the first one's comes after the head."""
        return [self._take_head(), "".join(self._page(page)).encode()]

    def end(self, summary: DocumentSummary) -> Iterable[bytes]:
        """What closes the file."""
        return [self._take_head(), self._end.encode()]

    def close(self) -> None:
        """Nothing is held."""

    def _take_head(self) -> bytes:
        head, self._head = self._head, ""
        return head.encode()
