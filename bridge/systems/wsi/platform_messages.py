"""The platform's messages about slides: `WsiAnalysisRequestedEvent` in MassTransit's envelope, or the same fields as plain JSON.

Plain: `{"jobId": …, "uploadId": …, "tenantId": 1, "requestedByUserId": …, "s3Key": …}`, names in any casing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from bridge.envelopes import masstransit, native, sns, tracing
from bridge.envelopes.message import Message
from bridge.errors import PermanentError, PoisonError
from bridge.job import Delivery, Event, Job

SYSTEM = "wsi-requests"
NAMESPACE = "HiveOrders.Api.Shared.Events"
REQUESTED = masstransit.urn(NAMESPACE, "WsiAnalysisRequestedEvent")
REQUESTED_TOPIC = "HiveOrders_Api_Shared_Events-WsiAnalysisRequestedEvent"
# Where requests without an envelope come by.
PLAIN_QUEUE = "wsi-jobs-in"
_EXPECTED = '{"jobId": "guid", "uploadId": "guid", "tenantId": 1, "requestedByUserId": "…", "s3Key": "wsi/…/slide.svs"}'
_PLAIN = frozenset({"jobid", "s3key"})
# What the platform's column holds.
_LONGEST_ERROR = 512
# How the answer goes back; kept in the job's request.
BY_EVENT, BY_QUEUE, BY_LEDGER = "event", "queue", "ledger"
_LONGEST_ID = 200


def _readable(value: object, read: ValidatorFunctionWrapHandler) -> object:
    try:
        return read(value)
    except ValidationError:
        return None


class AnalysisAnswer(Message):
    """Whom a request is to be answered."""

    jobid: UUID
    # As told; None where that cannot be read.
    uploadid: Annotated[UUID | None, WrapValidator(_readable)] = None
    tenantid: Annotated[int | None, WrapValidator(_readable)] = None
    # How the answer goes back.
    answer: str = BY_LEDGER
    # Of the envelope that it came in.
    conversation: Annotated[str, Field(max_length=_LONGEST_ID)] = ""
    message: Annotated[str, Field(max_length=_LONGEST_ID)] = ""
    # Why it cannot be done, of one whose other fields are not right: whoever waits for it is told so.
    refused: str = ""


class AnalysisRequest(AnalysisAnswer):
    """Asks for the analysis of one uploaded slide."""

    uploadid: UUID
    tenantid: int
    requestedbyuserid: Annotated[str, BeforeValidator(str)] = ""
    # Of the slide, in the platform's bucket.
    s3key: Annotated[str, StringConstraints(min_length=1, max_length=1024)]


@dataclass(frozen=True, kw_only=True)
class AnswerNames:
    """Where answers go and whom they come from."""

    # Topics of SNS.
    completed_topic: str = "HiveOrders_Api_Shared_Events-WsiAnalysisCompletedEvent"
    failed_topic: str = "HiveOrders_Api_Shared_Events-WsiAnalysisFailedEvent"
    # The queue of SQS that answers to plain requests go to.
    plain_queue: str = "wsi-jobs-out"
    # As MassTransit writes it: amazonsqs://region/queue.
    source: str = "amazonsqs://us-east-1/WsiAnalysisWorker"


def is_request(delivery: Delivery) -> bool:
    """Whether a message is in the platform's form, however broken it is."""
    return masstransit.is_enveloped(delivery.body, delivery.attributes) or _plain(delivery.body) is not None


def is_of_another_type(delivery: Delivery) -> bool:
    """Whether a message is a sound one of MassTransit that asks for something else."""
    try:
        return masstransit.is_enveloped(delivery.body, delivery.attributes) and not masstransit.read(delivery.body).is_of(REQUESTED)
    except PoisonError:
        return False


def job_of(delivery: Delivery) -> Job:
    """The job that a message asks for. Raises `PoisonError`."""
    plain = _plain(delivery.body)
    if plain is not None:
        return _asked_job(plain, answer=BY_QUEUE)
    if not masstransit.is_enveloped(delivery.body, delivery.attributes):
        return _job(native.read(delivery.body).request)
    envelope = masstransit.read(delivery.body)
    if not envelope.is_of(REQUESTED):
        raise PoisonError(f"the message is of the type {', '.join(envelope.types)}; expected {REQUESTED}.")
    conversation, message = envelope.conversation_id[:_LONGEST_ID], envelope.message_id[:_LONGEST_ID]
    return _asked_job(envelope.event, answer=BY_EVENT, conversation=conversation, message=message)


def request_of(job: Job) -> AnalysisRequest:
    """What a job asks for. Raises `PermanentError` for one that was not asked for in the right way."""
    if refused := _answer_of(job).refused:
        raise PermanentError(refused)
    return native.check_request(AnalysisRequest, job.request, expected=_EXPECTED)


def posted_job(content: Mapping[str, Any]) -> Job:
    """The job that a call over HTTP asks for; its answer stays in the ledger. Raises `PoisonError`."""
    return _asked_job({name.lower(): value for name, value in content.items()}, answer=BY_LEDGER)


def completed(job: Job, result_key: str, names: AnswerNames) -> tuple[Event, ...]:
    """The messages that tell that the result lies in the bucket under a key."""
    facts = {"jobId": job.key, "resultS3Key": result_key}
    return _answers(job, "completed", "WsiAnalysisCompletedEvent", names.completed_topic, facts, names)


def failed(job: Job, reason: str, names: AnswerNames) -> tuple[Event, ...]:
    """The messages that tell that there will be no result."""
    facts = {"jobId": job.key, "errorMessage": error_text(reason)}
    return _answers(job, "failed", "WsiAnalysisFailedEvent", names.failed_topic, facts, names)


def error_text(reason: str) -> str:
    """As much of a reason as the platform keeps."""
    return reason[:_LONGEST_ERROR]


def _answers(job: Job, kind: str, name: str, topic: str, facts: Mapping[str, Any], names: AnswerNames) -> tuple[Event, ...]:
    request = _answer_of(job)
    if request.answer == BY_EVENT:
        event = Event(type=kind, destination=f"sns:{topic}", body=b"", attributes={"Content-Type": masstransit.CONTENT_TYPE})
        envelope = masstransit.SentEnvelope(
            message_id=event.message_id(job.key),
            conversation_id=request.conversation,
            initiator_id=request.message,
            source=names.source,
            destination=f"{names.source.rsplit('/', 1)[0]}/{topic}?type=topic",
            type=masstransit.urn(NAMESPACE, name),
            event=facts,
            headers=tracing.headers(job.trace),
        )
        return (replace(event, body=masstransit.write(envelope)),)
    if request.answer == BY_QUEUE:
        content = {**facts, "uploadId": job.request.get("uploadid"), "tenantId": job.request.get("tenantid"), "status": kind.capitalize()}
        body = json.dumps(content, ensure_ascii=False).encode()
        return (Event(type=kind, destination=f"sqs:{names.plain_queue}", body=body, attributes={"content-type": "application/json"}),)
    return ()


def _asked_job(content: Mapping[str, Any], *, answer: str, conversation: str = "", message: str = "") -> Job:
    """Whatever the request itself says under our own names is of no account."""
    return _job({**content, "answer": answer, "conversation": conversation, "message": message, "refused": ""})


def _answer_of(job: Job) -> AnalysisAnswer:
    return native.check_request(AnalysisAnswer, job.request, expected=_EXPECTED)


def _job(content: Mapping[str, Any]) -> Job:
    request: AnalysisAnswer
    try:
        request = native.check_request(AnalysisRequest, content, expected=_EXPECTED)
    except PoisonError as error:
        # Who waits for a job by its id, such as the platform's saga, would else wait for ever.
        if content.get("answer", BY_LEDGER) == BY_LEDGER:
            raise
        request = native.check_request(AnalysisAnswer, {**content, "refused": str(error)}, expected=_EXPECTED)
    return Job(key=str(request.jobid), system=SYSTEM, request=request.model_dump(mode="json"))


def _plain(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(sns.unwrapped(body))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    named = {name.lower(): value for name, value in content.items()}
    return named if named.keys() >= _PLAIN and "messagetype" not in named else None
