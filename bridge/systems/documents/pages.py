"""Pages that were read, kept one file each, so that a redelivery goes on where the last try stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from bridge.inference.documents import DocumentPage, Line, Word
from bridge.results import ResultFolder, ResultStore

# A page as document.json has it.
PageContent = Mapping[str, Any]


class PageFiles:
    """The finished pages of one job. Each lies under the fence of the try that read it, and the checkpoint names that fence."""

    def __init__(self, *, results: ResultStore, job_key: str, fence: int, checkpoint: Mapping[str, Any]) -> None:
        """`checkpoint`: what the last try saved, or empty."""
        self._results = results
        self._job_key = job_key
        self._fence = fence
        self._fences: dict[int, int] = {int(page): int(fence) for page, fence in checkpoint.get("pages", {}).items()}
        self._page_count = int(checkpoint.get("page_count", 0))
        self._pages: dict[int, PageContent] = {}

    @property
    def page_count(self) -> int:
        """Pages of the document; 0 until it is known."""
        return self._page_count

    async def load(self) -> None:
        """Take the pages of earlier tries back; one that cannot be read is read anew."""
        for number, fence in list(self._fences.items()):
            content = await self._folder(fence).read(_name(number))
            if content is None:
                del self._fences[number]
            else:
                self._pages[number] = json.loads(content)

    async def add(self, page: DocumentPage) -> None:
        """Keep a page that was read now."""
        content = _content(page)
        await self._folder(self._fence).write(_name(page.page_number), json.dumps(content, ensure_ascii=False).encode())
        self._pages[page.page_number] = content
        self._fences[page.page_number] = self._fence
        self._page_count = page.page_count or self._page_count

    def missing(self, wanted: Iterable[int]) -> tuple[int, ...]:
        """The pages to ask for: empty for all. At least one, since the server tells the facts of the document only with a page."""
        if not self._pages or not self._page_count:
            return tuple(wanted)
        asked = tuple(wanted) or tuple(range(1, self._page_count + 1))
        return tuple(number for number in asked if number not in self._pages) or asked[-1:]

    def checkpoint(self) -> Mapping[str, Any]:
        """What a later try can go on from."""
        return {"page_count": self._page_count, "pages": {str(page): fence for page, fence in sorted(self._fences.items())}}

    def finished(self) -> list[PageContent]:
        """All pages so far, in order."""
        return [self._pages[number] for number in sorted(self._pages)]

    def share(self, wanted: int) -> float:
        """How much is done, 0 to 1. `wanted`: pages asked for, 0 for all."""
        return min(1.0, len(self._pages) / total) if (total := wanted or self._page_count) else 0.0

    def _folder(self, fence: int) -> ResultFolder:
        return self._results.folder("documents", self._job_key, fence)


def _name(page_number: int) -> str:
    return f"pages/{page_number:05d}.json"


def _content(page: DocumentPage) -> PageContent:
    content: dict[str, Any] = {
        "page_number": page.page_number,
        "width": page.width,
        "height": page.height,
        "text": page.text,
        "lines": [{**_piece(line), "words": [_word(word) for word in line.words]} for line in page.lines],
    }
    if page.text_source:
        content["text_source"] = page.text_source
    if page.fields:
        content["fields"] = [asdict(field) | {"confidence": round(field.confidence, 4)} for field in page.fields]
    if page.quality:
        content["quality"] = asdict(page.quality)
    return {**content, "error": page.error} if page.error else content


def _word(word: Word) -> dict[str, Any]:
    return {**_piece(word), "read_text": word.read_text} if word.read_text else _piece(word)


def _piece(piece: Line | Word) -> dict[str, Any]:
    return {"text": piece.text, "confidence": round(piece.confidence, 4), "polygon": piece.polygon}
