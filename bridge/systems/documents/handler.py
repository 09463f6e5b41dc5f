"""The document system's work: one document to words, lines and text."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from bridge.errors import TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.documents import DocumentChunk, DocumentOptions, DocumentPage, DocumentSummary
from bridge.job import Delivery, Job, Outcome
from bridge.results import ResultFolder, ResultStore
from bridge.systems import native
from bridge.systems.documents import messages
from bridge.systems.documents.files import DocumentFiles
from bridge.systems.documents.pages import PageContent, PageFiles
from bridge.systems.documents.received_files import ReceivedFiles
from bridge.systems.locations import local_path
from bridge.systems.port import Context

_MOST_BYTES = 128 * 1024 * 1024
_READING_SHARE = 0.95
_FIRST_LINES = 5


class DocumentHandler:
    """Has documents read, and keeps their words and text under `documents/{job key}/{fence}/`."""

    def __init__(
        self,
        *,
        client: InferenceClient,
        results: ResultStore,
        read_roots: Sequence[Path],
        most_bytes: int = _MOST_BYTES,
        checkpoint_seconds: float = 1.0,
    ) -> None:
        """`read_roots`: folders whose files may be read. `checkpoint_seconds`: the shortest time between two checkpoints."""
        self._client = client
        self._results = results
        self._files = DocumentFiles(roots=read_roots, most_bytes=most_bytes)
        self._checkpoint_seconds = checkpoint_seconds

    @property
    def system(self) -> str:
        """Its name."""
        return messages.SYSTEM

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        return messages.job_of(delivery.body)

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Read the document. Raises `TransientError`, `OverloadError`, `PermanentError`, `ConfigurationError`."""
        claim = context.claim
        # A file is written in one go: where one is asked for, a second try reads all pages anew.
        checkpoint = {} if messages.request_of(job).formats else claim.checkpoint
        pages = PageFiles(results=self._results, job_key=job.key, fence=claim.fence, checkpoint=checkpoint)
        await pages.load()
        folder = self._results.folder("documents", job.key, claim.fence)
        with ReceivedFiles(folder) as files:
            summary = await self._read(job, context, pages, files)
            return native.completed(job, await _written(job, pages.finished(), summary, folder, files))

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a document that is given up."""
        return native.failed(job, error="the document could not be read", reason=reason)

    async def _read(self, job: Job, context: Context, pages: PageFiles, files: ReceivedFiles) -> DocumentSummary:
        request = messages.request_of(job)
        path = local_path(request.document_uri)
        options = DocumentOptions(
            dpi=request.dpi,
            password=request.password,
            pages=pages.missing(request.pages),
            priority=job.priority,
            text_mode=request.text_mode,
            formats=request.formats,
        )
        content, uri = (await self._files.read(path), "") if path else (b"", request.document_uri)
        events = self._client.recognize_document(request_id=job.key, content=content, document_uri=uri, options=options)
        saved_at = time.monotonic()
        async with aclosing(events):
            async for event in events:
                if isinstance(event, DocumentSummary):
                    return event
                if isinstance(event, DocumentChunk):
                    await files.add(event)
                    continue
                await pages.add(event)
                context.report(_READING_SHARE * pages.share(len(request.pages)), _stage(event))
                if time.monotonic() - saved_at >= self._checkpoint_seconds:
                    await context.checkpoint(pages.checkpoint())
                    saved_at = time.monotonic()
        raise TransientError("the inference server ended the document without a summary.")


def _stage(page: DocumentPage) -> str:
    return f"page {page.page_number}/{page.page_count}" if page.page_count else f"page {page.page_number}"


async def _written(
    job: Job, pages: list[PageContent], summary: DocumentSummary, folder: ResultFolder, files: ReceivedFiles
) -> Mapping[str, Any]:
    facts = _facts(job, pages, summary)
    document = await asyncio.to_thread(json.dumps, {**facts, "pages": pages}, ensure_ascii=False)
    text = "\f".join(str(page["text"]) for page in pages)
    artifacts = [await _artifact(folder, "document.json", "application/json", document.encode())]
    artifacts.append(await _artifact(folder, "document.txt", "text/plain; charset=utf-8", text.encode()))
    artifacts += files.artifacts
    facts = {**facts, "file_errors": dict(files.errors)} if files.errors else facts
    first_lines = [line for page in pages for line in str(page["text"]).splitlines() if line.strip()][:_FIRST_LINES]
    return {**facts, "first_lines": first_lines, "location": folder.location, "text_uri": artifacts[1]["uri"], "artifacts": artifacts}


def _facts(job: Job, pages: list[PageContent], summary: DocumentSummary) -> dict[str, Any]:
    # Counted here and not taken from the summary: that one knows nothing of pages that an earlier try read.
    confidences = [word["confidence"] for page in pages for line in page["lines"] for word in line["words"]]
    return {
        "document_uri": job.request["document_uri"],
        "media_type": summary.media_type,
        "page_count": summary.page_count,
        "pages_read": len(pages),
        "failed_pages": sum(1 for page in pages if page.get("error")),
        "word_count": len(confidences),
        "mean_confidence": round(sum(confidences) / len(confidences), 4) if confidences else 0.0,
        "models": list(summary.models),
        "duration_seconds": round(summary.duration_seconds, 3),
    }


async def _artifact(folder: ResultFolder, name: str, media_type: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "media_type": media_type, "uri": await folder.write(name, content), "size_bytes": len(content)}
