"""Answers the platform once more."""

from __future__ import annotations

from bridge.envelopes import masstransit
from bridge.errors import PermanentError
from bridge.job import Event, Job, Message
from bridge.ledger.port import JobRecord, State
from bridge.settings import Settings
from bridge.sinks.sns import SnsSink
from bridge.systems.wsi import platform_messages
from bridge.systems.wsi.platform_messages import AnswerNames
from bridge.transports.aws import open_aws, wsi_source


async def republish(settings: Settings, record: JobRecord) -> str:
    """Tell the platform of an ended job once more, under a new message id; returns that id. Raises `PermanentError`."""
    event = _answer(settings, record)
    message_id, body = masstransit.republished(event.body)
    message = Message(
        message_id=message_id,
        job_key=record.key,
        type=event.type,
        destination=event.destination.removeprefix("sns:"),
        body=body,
        attributes=event.attributes,
    )
    async with open_aws(settings) as aws:
        await SnsSink(aws).send(message)
    return message_id


def _answer(settings: Settings, record: JobRecord) -> Event:
    """The event that answered the job. Raises `PermanentError`."""
    result = record.result or {}
    if record.system != platform_messages.SYSTEM or record.state not in {State.SUCCEEDED, State.FAILED}:
        stands = f"the job {record.key} is {record.state.value} and of the system {record.system}"
        raise PermanentError(f"{stands}; only an ended job of {platform_messages.SYSTEM} has an answer")
    job = Job(key=record.key, system=record.system, request=record.request)
    names = AnswerNames(source=wsi_source(settings))
    succeeded = record.state is State.SUCCEEDED
    events = (
        platform_messages.completed(job, result["result_s3_key"], names)
        if succeeded
        else platform_messages.failed(job, str(result["reason"]), names)
    )
    if not events or not events[0].destination.startswith("sns:"):
        raise PermanentError(f"the job {record.key} was not asked for by an event, so that none answers it")
    return events[0]
