"""The card platform's work: one document, from its object to its score, and to a person where that is needed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import structlog

from bridge.errors import BridgeError, ConfigurationError, OverloadError, PermanentError, TransientError
from bridge.inference.client import InferenceClient
from bridge.job import CORRELATION, Delivery, Event, Job, Outcome
from bridge.moments import moment_text
from bridge.records.documents import DocumentRecord, DocumentRecords
from bridge.results import ResultStore
from bridge.reviews import ReviewService
from bridge.systems.cards import messages
from bridge.systems.cards.finding import Finding, finding_of
from bridge.systems.cards.options import CardOptions
from bridge.systems.cards.reading.readers import CardReaders, told_of_reader
from bridge.systems.cards.reading.tesseract import Tesseract
from bridge.systems.port import Context

_log = structlog.get_logger()
_MOST_FAILURES = 1000
# Of an answer, what tells of a card's holder, or is told more shortly.
_OF_PEOPLE = frozenset({"ocrText", "parsedResult", "fields", "reviewReasons"})


class Escalations(Protocol):
    """Cases that could not be handed over yet."""

    def later(self, case: Mapping[str, Any]) -> Event:
        """The message that puts a case where it is handed over from later."""


class CardHandler:
    """Reads cards. What was read is committed before it is evaluated, and that before the document ends: no step is done twice."""

    def __init__(
        self,
        *,
        client: InferenceClient,
        records: DocumentRecords,
        bucket: ResultStore,
        reviews: ReviewService,
        escalations: Escalations,
        options: CardOptions,
        tesseract: Tesseract | None = None,
    ) -> None:
        """`bucket`: of the documents' objects, opened at its root."""
        self._readers = CardReaders(client, tesseract or Tesseract(), options)
        self._records = records
        self._bucket = bucket
        self._reviews = reviews
        self._escalations = escalations
        self._options = options
        self._failures = _Failures()

    @property
    def system(self) -> str:
        """Its name."""
        return messages.SYSTEM

    def recognises(self, delivery: Delivery) -> bool:
        """Whether an item is in the platform's form."""
        return messages.is_request(delivery)

    def parse(self, delivery: Delivery) -> Job:
        """Read an item. Raises `PoisonError`."""
        return messages.job_of(delivery)

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Read, parse and score the document. Raises `TransientError`, `OverloadError`, `PermanentError`, `ConfigurationError`."""
        began = time.monotonic()
        document = await self._row(job.request["documentId"])
        try:
            return await self._work_on(document, job, context, began)
        finally:
            # Of one that went well too: the tables may refuse its end.
            self._failures.note(job.key, began)

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a document that is given up."""
        request = job.request
        answer = {
            "success": False,
            "documentId": request["documentId"],
            CORRELATION: request[CORRELATION],
            "error": reason,
            "gpuProcessed": False,
            **self._failures.told(job.key),
        }
        write = self._records.failed(request["documentId"], error=reason)
        return Outcome(
            succeeded=False,
            result={"error": "the document could not be read", "reason": reason},
            events=(self._event("failed", answer),),
            writes=(write,),
        )

    async def _work_on(self, document: DocumentRecord, job: Job, context: Context, began: float) -> Outcome:
        if document.is_completed:
            return _skipped(document)
        saved = dict(context.claim.checkpoint)
        if "text" not in saved:
            await context.checkpoint(saved, [self._records.processing(document.id)])
            content = await self._content(document)
            saved |= await self._readers.read(document.type, content, job, context)
            await context.checkpoint(saved, [self._records.read(document.id, saved["text"])])
        finding = await self._evaluated(document, saved)
        # Reading took its time: a person, or another program, may have been quicker, or its owner has removed it.
        document = await self._row(document.id)
        if document.is_completed:
            return _skipped(document)
        score = finding.score
        write = self._records.evaluated(document.id, score=score.points, decision=score.decision, fields=finding.card.values)
        await context.checkpoint(saved, [write])
        ticket, events = await self._escalate(document, finding, job, context, saved)
        answer = self._answer(job, saved, finding, _milliseconds(began))
        return Outcome(
            succeeded=True,
            # What was read lies in the platform's table: who asks for the job is told none of it.
            result={name: value for name, value in answer.items() if name not in _OF_PEOPLE}
            | {"reviewCodes": [reason.code for reason in finding.reasons], "ticket": ticket},
            events=(self._event("completed", answer), *events),
            writes=(self._records.completed(document.id, outcome=score.outcome, ticket=ticket),),
            fallback=saved.get("fell_back_to", ""),
        )

    async def _row(self, document_id: str) -> DocumentRecord:
        try:
            document = await self._records.find(document_id)
        except TransientError as error:
            # The work has not failed: it costs no attempt.
            raise OverloadError(str(error)) from error
        if document is None:
            raise PermanentError("Document not found")
        return document

    async def _content(self, document: DocumentRecord) -> bytes:
        if not document.file_url:
            raise PermanentError("Document has no file URL")
        key = _key_in(document.file_url) if document.file_url.startswith("http") else document.file_url
        content = await self._bucket.read(key, most_bytes=self._options.most_bytes)
        if content is None:
            raise PermanentError(f"the object {key} is not in the bucket")
        if not content:
            raise PermanentError(f"the object {key} is empty")
        return content

    async def _evaluated(self, document: DocumentRecord, saved: Mapping[str, Any]) -> Finding:
        finding = await asyncio.to_thread(finding_of, document.type, saved, gate=self._options.gate)
        if finding is None:
            raise PermanentError(f"Unknown document type: {document.type}")
        return finding

    async def _escalate(
        self, document: DocumentRecord, finding: Finding, job: Job, context: Context, saved: dict[str, Any]
    ) -> tuple[str | None, tuple[Event, ...]]:
        """Hand a case that needs a person over; where the service does not take it now, it is put where it is handed over from later."""
        if finding.score.decision != "needs_review":
            return None, ()
        if ticket := saved.get("ticket") or document.buli2_ticket_id:
            return ticket, ()
        if document.is_decided:
            _log.info("escalation_not_needed", verification=document.verification_status)
            return None, ()
        case = {
            "documentId": document.id,
            "userId": document.user_id,
            "documentType": document.type,
            "parsedData": dict(finding.card.values),
            "aiScore": finding.score.points,
            "reasons": [f"{reason.code}: {reason.message}" for reason in finding.reasons],
            # The same each time that the case is handed over.
            "correlationId": f"esc-{document.id}-{job.request[CORRELATION]}",
            "metadata": {"submittedAt": moment_text()},
        }
        try:
            ticket = await self._reviews.submit(case)
        except BridgeError as error:
            # What only a person can mend is said aloud.
            tell = _log.error if isinstance(error, ConfigurationError | PermanentError) else _log.warning
            tell("escalation_delayed", reason=str(error))
            return None, (self._escalations.later(case),)
        saved["ticket"] = ticket
        await context.checkpoint(saved)
        return ticket, ()

    def _answer(self, job: Job, saved: Mapping[str, Any], finding: Finding, milliseconds: int) -> dict[str, Any]:
        """The platform's result; beside it which engine read the document, where the fields stand, and why a person is to look."""
        return {
            "success": True,
            "documentId": job.request["documentId"],
            CORRELATION: job.request[CORRELATION],
            "ocrText": saved["text"],
            "parsedResult": dict(finding.card.values),
            "score": finding.score.points,
            "decision": finding.score.decision,
            "outcome": finding.score.outcome,
            "processingTimeMs": milliseconds,
            **told_of_reader(saved, has_gpu=self._options.has_gpu),
            **finding.told(),
        }

    def _event(self, kind: str, answer: Mapping[str, Any]) -> Event:
        body = json.dumps(answer, ensure_ascii=False).encode()
        return Event(type=kind, destination=f"redis:{self._options.channel}", body=body, attributes={"system": messages.SYSTEM})


class _Failures:
    """How long the last tries took: whoever gives a job up asks right after, if at all."""

    def __init__(self) -> None:
        self._took: dict[str, int] = {}

    def note(self, job_key: str, began: float) -> None:
        # Behind all others, though it was noted before: the oldest go.
        self._took.pop(job_key, None)
        self._took[job_key] = _milliseconds(began)
        while len(self._took) > _MOST_FAILURES:
            del self._took[next(iter(self._took))]

    def told(self, job_key: str) -> dict[str, int]:
        """For a result; empty where no try was made, or none got as far as its document."""
        took = self._took.pop(job_key, None)
        return {} if took is None else {"processingTimeMs": took}


def _key_in(url: str) -> str:
    """The key of a document's object. Raises `PermanentError`, without the URL: it may be signed."""
    try:
        key = unquote(urlsplit(url).path.lstrip("/"))
    except ValueError as error:
        raise PermanentError("the document's file URL cannot be read") from error
    if not key:
        raise PermanentError("the document's file URL names no object")
    return key


def _skipped(document: DocumentRecord) -> Outcome:
    """Of a document that another program has completed, and told of."""
    return Outcome(succeeded=True, result={"documentId": document.id, "skipped": True})


def _milliseconds(began: float) -> int:
    return round(1000 * (time.monotonic() - began))
