"""Tab-separated values with the columns of Tesseract's own (`tesseract … tsv`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from inference_server.tasks.documents.outputs.places import Box, box_around, box_of
from inference_server.tasks.documents.values import DocumentSummary, PageResult

_COLUMNS = ["level", "page_num", "block_num", "par_num", "line_num", "word_num", "left", "top", "width", "height", "conf", "text"]


class TsvWriter:
    """Rows of pages (level 1), blocks (2), paragraphs (3), lines (4) and words (5). A page is one block of one paragraph."""

    def __init__(self) -> None:
        self._pages = 0

    def page(self, page: PageResult) -> Iterable[bytes]:
        """The page's rows; before the first page, the columns' names."""
        self._pages += 1
        rows = ["\t".join(_COLUMNS)] if self._pages == 1 else []
        return [f"{row}\n".encode(errors="replace") for row in [*rows, *_rows(page)]]

    def end(self, summary: DocumentSummary) -> Iterable[bytes]:
        """Nothing more; of a document without pages the columns' names."""
        return [] if self._pages else ["\t".join(_COLUMNS).encode() + b"\n"]

    def close(self) -> None:
        """Nothing is held."""


def _rows(page: PageResult) -> Iterator[str]:
    number, size = page.page_number, (page.width, page.height)
    yield _row((1, number, 0, 0, 0, 0), Box(left=0, top=0, right=page.width, bottom=page.height))
    if not page.lines:
        return
    block = box_around((line.polygon for line in page.lines), *size)
    yield _row((2, number, 1, 0, 0, 0), block)
    yield _row((3, number, 1, 1, 0, 0), block)
    for line_number, line in enumerate(page.lines, 1):
        yield _row((4, number, 1, 1, line_number, 0), box_of(line.polygon, *size))
        for word_number, word in enumerate(line.words, 1):
            box = box_of(word.polygon, *size)
            yield _row((5, number, 1, 1, line_number, word_number), box, f"{100 * word.confidence:.6f}", word.text)


def _row(numbers: tuple[int, ...], box: Box, confidence: str = "-1", text: str = "") -> str:
    # The only characters that would break the table; words have no other white space.
    told = text.translate({ord("\t"): " ", ord("\n"): " ", ord("\r"): " "})
    return "\t".join([*map(str, numbers), *map(str, (box.left, box.top, box.width, box.height)), confidence, told])
