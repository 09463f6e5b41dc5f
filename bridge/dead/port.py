"""What every place of dead messages does, and how they are picked out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Protocol

from bridge.envelopes import masstransit, native
from bridge.errors import PoisonError
from bridge.job import Delivery
from bridge.systems.wsi import platform_messages


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a message says of itself. What it does not say, or cannot be read, is empty."""

    job_key: str = ""
    system: str = ""
    # The event of MassTransit, without its namespace.
    type: str = ""


@dataclass(frozen=True, kw_only=True)
class DeadMessage:
    """One message, as it lies there."""

    # What names it in its place.
    id: str
    # The kind of queue, such as sqs, and the one that it lies in, or lay in when the ledger has it.
    source: str
    queue: str
    # The queue that a replay sends it to; empty when nothing tells.
    destination: str
    # The source's own.
    message_id: str
    contents: Contents
    reason: str
    # Seconds since 1970.
    died_at: float
    # When it was last sent again; None when it was not.
    replayed_at: float | None = None
    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which messages are meant. What is not given is any."""

    # The start of an id, or all of it.
    id: str = ""
    whole_id: bool = False
    # Seconds that a message has been dead for, at least and at most.
    older_than: float | None = None
    newer_than: float | None = None
    # Found anywhere in the reason, in any casing.
    reason: re.Pattern[str] | None = None
    # Patterns of a shell, such as order-*.
    system: str = ""
    type: str = ""
    key: str = ""
    # Whether those that were sent again already are meant too.
    replayed: bool = True

    @property
    def narrows(self) -> bool:
        """Whether anything is given that a message must have, beside its id."""
        return replace(self, id="", whole_id=False, replayed=True) != Wanted()

    def fits(self, message: DeadMessage, *, now: float) -> bool:
        """Whether a message is meant. `now`: seconds since 1970."""
        age = now - message.died_at
        return (
            (message.id == self.id if self.whole_id else message.id.startswith(self.id))
            and (self.older_than is None or age >= self.older_than)
            and (self.newer_than is None or age <= self.newer_than)
            and (self.reason is None or self.reason.search(message.reason) is not None)
            and _like(message.contents.system, self.system)
            and _like(message.contents.type, self.type)
            and _like(message.contents.job_key, self.key)
            and (self.replayed or message.replayed_at is None)
        )


class DeadPlace(Protocol):
    """A place of dead messages. Looking at them leaves them there."""

    def browse(self) -> AsyncIterator[DeadMessage]:
        """Each of them once. Raises `TransientError`, `ConfigurationError`."""

    async def replay(self, message: DeadMessage, *, to: str = "") -> str:
        """Send one again, and take it off its place once that is confirmed; returns where it went.

        `to`: instead of where it came from. A kill in between leaves it there, and replaying it once more is one message to a FIFO
        queue and one job to a bridge. Raises `PermanentError`, `TransientError`, `ConfigurationError`.
        """


def contents_of(body: bytes, attributes: Mapping[str, str]) -> Contents:
    """What a message says of itself. Never raises."""
    delivery = Delivery(source="", queue="", message_id="", receipt="", body=body, attributes=attributes)
    kind = _type_of(delivery)
    try:
        if platform_messages.is_request(delivery):
            job = platform_messages.job_of(delivery)
            return Contents(job_key=job.key, system=job.system, type=kind)
        envelope = native.read(body)
        return Contents(job_key=envelope.key, system=envelope.system, type=kind)
    except PoisonError:
        return Contents(type=kind)


def _type_of(delivery: Delivery) -> str:
    try:
        types = masstransit.read(delivery.body).types if masstransit.is_enveloped(delivery.body, delivery.attributes) else ()
    except PoisonError:
        return ""
    return types[0].rpartition(":")[2] if types else ""


def _like(text: str, pattern: str) -> bool:
    return not pattern or fnmatchcase(text.lower(), pattern.lower())
