"""Who reads a card: the inference server's GPU, its CPU in the GPU's place, Tesseract in the server's; each within a time of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import structlog

from bridge.breaker import Breaker
from bridge.errors import BridgeError, DeviceError, OverloadError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.inference.documents import DocumentOptions, DocumentPage, DocumentSummary
from bridge.job import Job
from bridge.systems.cards.finding import fields_in, reading_of
from bridge.systems.cards.options import CardOptions
from bridge.systems.cards.reading.engines import has_no_engine, read_on_gpu, safe_part, why_gpu_failed, why_on_cpu
from bridge.systems.cards.reading.tesseract import Tesseract
from bridge.systems.port import Context

_log = structlog.get_logger()
_SERVER, _TESSERACT = "server", "tesseract"
_GPU, _CPU = "gpu", "cpu"
# Of what the GPU and the CPU came to, together.
_LONGEST_REASON = 500
# An operator has to do something first.
_NO_ENGINE_RETRY_AFTER = 15.0
# A GPU of which not a page of so many documents in a row came in time hangs: where the CPU may read in its place, one at a time tries it
# then, its time and so many seconds after the last.
_HANGING, _SECONDS_BETWEEN_LOOKS = 3, 60.0


class _LateError(TimeoutError):
    """A device's time is up."""

    def __init__(self, pages: int) -> None:
        """`pages`: that came in time."""
        super().__init__()
        self.pages = pages


class CardReaders:
    """Has a document read by the first of those who may, and can."""

    def __init__(self, client: InferenceClient, tesseract: Tesseract, options: CardOptions, *, hanging: Breaker | None = None) -> None:
        """`hanging`: whether the GPU is left alone."""
        self._client = client
        self._tesseract = tesseract
        self._options = options
        self._hanging = hanging or Breaker(name="the GPU", failures=_HANGING, seconds=options.gpu_seconds + _SECONDS_BETWEEN_LOOKS)

    async def read(self, kind: str, content: bytes, job: Job, context: Context) -> dict[str, Any]:
        """The text, what is kept of the pages, and who read them; Tesseract only once the tries are used up, or the server refuses.

        Raises `TransientError`, `OverloadError`, `PermanentError`.
        """
        try:
            return await self._by_server(kind, content, job, context)
        except (TransientError, PermanentError) as error:
            last = context.claim.attempts + 1 >= self._options.most_attempts or isinstance(error, PermanentError)
            if not (last and self._options.falls_back and self._tesseract.found):
                raise
            return await self._by_tesseract(kind, content, error)

    async def _by_tesseract(self, kind: str, content: bytes, failed: BridgeError) -> dict[str, Any]:
        """Read in the server's place. Raises `PermanentError` with what either came to."""
        why = safe_part(failed, most=_LONGEST_REASON)
        try:
            text = await self._tesseract.read(content, found=lambda text: fields_in(kind, text))
        except PermanentError as error:
            raise PermanentError(f"{why}; nor was it read in the server's place: {error}") from error
        _log.warning("fell_back", to=_TESSERACT, reason=why)
        return {"text": text, "engine": _TESSERACT, "fell_back_to": _TESSERACT, "fell_back_for": why}

    async def _by_server(self, kind: str, content: bytes, job: Job, context: Context) -> dict[str, Any]:
        """Read by its GPU where one is to be there, and by its CPU where that fails; else by what it has."""
        options = self._options
        if not options.has_gpu:
            try:
                return await self._on("", options.cpu_seconds, kind, content, job, context)
            except TimeoutError as error:
                raise TransientError(f"the inference server did not answer within {options.cpu_seconds:g} s") from error
            except TransientError as error:
                raise TransientError(safe_part(error)) from error
        try:
            if options.falls_back:
                self._hanging.enter()
        except OverloadError as error:
            return await self._by_cpu(str(error), kind, content, job, context)
        try:
            return await self._by_gpu(kind, content, job, context)
        except (TimeoutError, TransientError) as error:
            late = f"the GPU did not answer within {options.gpu_seconds:g} s"
            why = late if isinstance(error, TimeoutError) else why_gpu_failed(error)
            if not options.falls_back:
                raise _without_leave(error, why) from error
        return await self._by_cpu(why, kind, content, job, context)

    async def _by_gpu(self, kind: str, content: bytes, job: Job, context: Context) -> dict[str, Any]:
        """Read, and note whether it answers at all. Raises as `_on` does."""
        try:
            read = await self._on(_GPU, self._options.gpu_seconds, kind, content, job, context)
        except _LateError as error:
            # A document may be too long for it.
            if error.pages:
                self._hanging.succeeded()
            else:
                self._hanging.failed()
            raise
        except (TransientError, PermanentError):
            self._hanging.succeeded()
            raise
        self._hanging.succeeded()
        return read

    async def _by_cpu(self, why: str, kind: str, content: bytes, job: Job, context: Context) -> dict[str, Any]:
        """Read in the GPU's place. Errors tell what either came to."""
        seconds = self._options.cpu_seconds
        try:
            read = await self._on(_CPU, seconds, kind, content, job, context)
        except TimeoutError as error:
            raise TransientError(f"{why}; the CPU did not answer within {seconds:g} s") from error
        except DeviceError as error:
            raise TransientError(f"{why}; {safe_part(error)}") from error
        except TransientError as error:
            raise TransientError(f"{why}; the CPU failed: {safe_part(error)}") from error
        except PermanentError as error:
            raise PermanentError(f"{why}; on the CPU: {safe_part(error)}") from error
        _log.warning("fell_back", to=_CPU, reason=why)
        return {**read, "fell_back_to": _CPU, "fell_back_for": why}

    async def _on(self, device: str, seconds: float, kind: str, content: bytes, job: Job, context: Context) -> dict[str, Any]:
        """Read by the server, on a device. Raises `_LateError`, `TransientError`, `OverloadError`, `PermanentError`."""
        pages: dict[int, DocumentPage] = {}
        summary: DocumentSummary | None = None
        options = DocumentOptions(priority=job.priority, device=device)
        events = self._client.recognize_document(request_id=job.key, content=content, options=options)
        try:
            async with asyncio.timeout(seconds), aclosing(events):
                async for event in events:
                    if isinstance(event, DocumentSummary):
                        summary = event
                    elif isinstance(event, DocumentPage):
                        pages[event.page_number] = event
                        context.report(0.9, f"page {event.page_number}")
        except TimeoutError as error:
            raise _LateError(len(pages)) from error
        if summary is None:
            raise TransientError("the inference server ended the document without a summary.")
        failed = [page.error for page in pages.values() if page.error]
        if failed and len(failed) == len(pages):
            raise PermanentError(failed[0])
        ordered = [pages[number] for number in sorted(pages)]
        text = "\n".join(page.text for page in ordered)
        kept = await asyncio.to_thread(reading_of, kind, ordered)
        return {"text": text, "engine": _SERVER, "models": list(summary.models), **kept}


def _without_leave(error: Exception, why: str) -> BridgeError:
    """What a GPU's failure means where nobody may read in its place: documents wait for one that is not there."""
    if not has_no_engine(error):
        return TransientError(why)
    _log.error("no_gpu", reason=why)
    return OverloadError(why, retry_after=_NO_ENGINE_RETRY_AFTER)


def told_of_reader(saved: Mapping[str, Any], *, has_gpu: bool) -> dict[str, Any]:
    """What a result tells of who read the document, and why nobody before him did. `has_gpu`: whether a GPU is to be there."""
    models = saved.get("models", [])
    by_gpu = saved["engine"] == _SERVER and saved.get("fell_back_to") != _CPU and read_on_gpu(models)
    why = saved.get("fell_back_for", "")
    if saved["engine"] == _SERVER and has_gpu and not by_gpu:
        why = why_on_cpu(models, why)
    return {"gpuProcessed": by_gpu, "engine": saved["engine"], "models": models, **({"fallbackReason": why} if why else {})}
