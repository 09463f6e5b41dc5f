"""The values that travel through the bridge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from bridge.errors import PoisonError

# The attribute under which a delivery tells that its body could not be had, and why.
UNREADABLE = "lamina-unreadable"
# The attribute that tells one asking for an item of a list from another.
CORRELATION = "correlationId"
# A key is indexed by every ledger.
_LONGEST_KEY = 500
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Every message id is uuid5 of this namespace, so that a message sent twice carries one id.
_MESSAGES = UUID("6f0d6f8c-5a53-5d0e-9b1c-2d5f9a1e7c44")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One receipt of a message from a source. The same message may be delivered again."""

    # The source that gave it, as configured: local, sqs.
    source: str
    # The queue that it lay in.
    queue: str
    # The source's own id of the message; stable across deliveries.
    message_id: str
    # What acknowledges this delivery, and only this one.
    receipt: str
    # The original bytes.
    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    # How often the message was delivered, this time included; 1 when the source does not count.
    receive_count: int = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a delivery asks for."""

    # Identifies the job across deliveries: two deliveries with one key are one job.
    key: str
    # The system whose handler does it: wsi, documents, labs.
    system: str
    # What the handler needs; JSON values only.
    request: Mapping[str, Any]
    # Where its result goes; empty for the bridge's own.
    reply_queue: str = ""
    # Lower goes first; 0 for the default.
    priority: int = 0
    # The trace that it belongs to: W3C's headers, traceparent and perhaps tracestate; empty for none.
    trace: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise `PoisonError` for a key that no ledger could hold: its message would come again for ever."""
        if not 0 < len(self.key) <= _LONGEST_KEY or _UNSTORABLE.search(self.key):
            raise PoisonError(f"the job's key is not right; expected 1 to {_LONGEST_KEY} characters, none of them NUL or half of a pair")


@dataclass(frozen=True, kw_only=True)
class Units:
    """What is counted while a job is worked on: tiles, pages."""

    done: int = 0
    # 0 until it is known.
    total: int = 0
    per_second: float = 0.0
    # Estimated; None until it can be.
    seconds_left: float | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a job is."""

    # 0 to 1.
    share: float = 0.0
    # What is being done, in a word.
    stage: str = ""
    units: Units = field(default_factory=Units)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One message to be sent once its job has ended."""

    # Names the message among those of its job: completed, failed. Part of its id.
    type: str
    # The queue, topic or channel that it goes to; empty for the sink's own.
    destination: str
    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)

    def message_id(self, job_key: str) -> str:
        """The same for every try to send this message."""
        return str(uuid5(_MESSAGES, f"{job_key}/{self.type}"))


@dataclass(frozen=True, kw_only=True)
class Write:
    """A change of a platform's own tables, which lie beside the ledger's: it is made where the job is still ours, or not at all."""

    # SQL with `:named` values.
    statement: str
    # Text, numbers, booleans, None, or lists and objects as JSON text.
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job ended with."""

    succeeded: bool
    # The result, or {"error": …, "reason": …}; JSON values only.
    result: Mapping[str, Any]
    events: tuple[Event, ...] = ()
    # Made in the transaction that ends the job, in this order.
    writes: tuple[Write, ...] = ()
    # `cpu` where the inference server's did the work in a GPU's place, or the program that did it in the server's; else empty.
    fallback: str = ""


@dataclass(frozen=True, kw_only=True)
class Message:
    """An event of a job that has ended, on its way to a sink: one row of the outbox."""

    message_id: str
    job_key: str
    type: str
    destination: str
    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    # Tries to send it so far.
    attempts: int = 0
    # When it was put there, in seconds since 1970. A job that was begun anew asks for the same message once more, at another time.
    asked_at: float = 0.0
