"""Sends messages to where jobs come from."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid5

from bridge.database.local_queue import LocalQueue
from bridge.database.port import Database
from bridge.errors import PermanentError
from bridge.job import Job
from bridge.ledger.port import DeadLetter
from bridge.settings import Settings
from bridge.transports.aws import resend_to_sqs, send_to_sqs
from bridge.transports.pubsub import publish
from bridge.transports.redis import resend_to_redis, send_to_redis

_REPLAYS = UUID("f1b7f0d2-9b52-5a0f-8a41-64a1c1f3d0c9")


async def send_job(settings: Settings, job: Job, message: bytes, *, local: LocalQueue, attributes: Mapping[str, str] | None = None) -> None:
    """Send a message that asks for a job to the source that is set; `local` is the embedded one.

    `attributes`: those that Pub/Sub's readers expect beside the job's key.
    """
    if settings.sqs_queues:
        await send_to_sqs(settings, job, message)
    elif settings.redis_queues:
        await send_to_redis(settings, settings.redis_queues[0 if job.priority <= 0 else -1], job.key, message)
    elif settings.pubsub_subscriptions:
        await publish(settings, message, {"job_key": job.key, **(attributes or {})})
    else:
        await local.send(job.key, message, priority=job.priority)


def replay_id(letter: DeadLetter) -> str:
    """The id under which a dead letter is sent again: not that of its message, which may still be on its way off the queue.

    The same until the replay is noted, so that one that is cut off before that, and done again, is one message.
    """
    life = uuid5(_REPLAYS, f"{letter.id}/{letter.dead_at!r}/{letter.replayed_at!r}")
    return f"{letter.message_id}.{life.hex[:12]}"


def replay_place(settings: Settings, letter: DeadLetter) -> str:
    """Where a dead letter is sent again: its queue; of Pub/Sub, whose subscriptions take nothing, the one topic that is set."""
    return settings.pubsub_topic if letter.source == "pubsub" else letter.queue


async def resend_letter(settings: Settings, letter: DeadLetter, *, database: Database) -> None:
    """Send the bytes of a dead letter to where they came from. Raises `PermanentError` when that is not set up here."""
    own = replay_id(letter)
    if letter.source == "sqs":
        await resend_to_sqs(settings, letter, message_id=own)
    elif letter.source == "local":
        await LocalQueue(database, letter.queue).send(own, letter.body, attributes=letter.attributes)
    elif letter.source == "redis" and letter.queue in settings.redis_queues:
        await resend_to_redis(settings, letter, message_id=own)
    elif letter.source == "pubsub" and letter.queue in settings.pubsub_subscriptions:
        await publish(settings, letter.body, dict(letter.attributes))
    else:
        raise PermanentError(f"dead letter {letter.id} came from {letter.source}, which is not set up here; replay it where it is")
