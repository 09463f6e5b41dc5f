"""The envelope of MassTransit, both ways (content type `application/vnd.masstransit+json`).

Read with tolerance: names in any casing, the event under `message` or `payload`, wrapped by SNS or raw, with or without content type.
Written in the strict form only, with a message id that is the same for every try, as receivers drop by it what they have had.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from bridge.envelopes import sns
from bridge.errors import PoisonError
from bridge.moments import moment_text

CONTENT_TYPE = "application/vnd.masstransit+json"
_URN = "urn:message:"
_EXPECTED = '{"messageId": "…", "messageType": ["urn:message:Namespace:Name"], "message": {…}}'
_REPUBLISHED = UUID("0d1f1d6e-5d83-5d0c-9a5f-5a1b6a6f0c11")
# What MassTransit keeps of an error's text in headers; SQS limits the attributes in all.
_LONGEST_REASON = 512


@dataclass(frozen=True, kw_only=True)
class ReceivedEnvelope:
    """What a message says beside its event."""

    # Empty when it says none.
    message_id: str
    conversation_id: str
    # Where a fault is to be told, as amazonsqs://region/queue; empty for nowhere.
    fault_address: str
    # URNs, as they were sent.
    types: tuple[str, ...]
    # The event; names in lower case.
    event: Mapping[str, Any]

    def is_of(self, urn: str) -> bool:
        """Whether the event is of that type, or says none."""
        return not self.types or urn.lower() in (each.lower() for each in self.types)


@dataclass(frozen=True, kw_only=True)
class SentEnvelope:
    """What a message of ours says."""

    # The same for every try.
    message_id: str
    # Of the request that it answers; empty for none.
    conversation_id: str
    initiator_id: str
    # URIs such as amazonsqs://region/queue.
    source: str
    destination: str
    # A URN.
    type: str
    # Names in camel case.
    event: Mapping[str, Any]
    # Such as those of a trace.
    headers: Mapping[str, str] = field(default_factory=dict)


def urn(namespace: str, name: str) -> str:
    """The URN of an event."""
    return f"{_URN}{namespace}:{name}"


def is_enveloped(body: bytes, attributes: Mapping[str, str]) -> bool:
    """Whether a message comes from MassTransit, however broken it is."""
    if any(name.lower() == "content-type" and "masstransit" in value.lower() for name, value in attributes.items()):
        return True
    try:
        content = _unwrapped(body)
    except PoisonError:
        return False
    return "messagetype" in content or {"messageid", "message"} <= content.keys()


def read(body: bytes) -> ReceivedEnvelope:
    """Open a message. Raises `PoisonError`, saying what was expected."""
    content = _unwrapped(body)
    event = content.get("message", content.get("payload"))
    if not isinstance(event, dict):
        raise PoisonError(f"the MassTransit envelope holds no event under `message`; expected {_EXPECTED}.")
    types = content.get("messagetype") or ()
    if isinstance(types, str):
        types = (types,)
    if not isinstance(types, list | tuple) or not all(isinstance(each, str) for each in types):
        raise PoisonError(f"the MassTransit envelope's `messageType` is no list of names; expected {_EXPECTED}.")
    return ReceivedEnvelope(
        message_id=_text(content.get("messageid")),
        conversation_id=_text(content.get("conversationid")),
        fault_address=_text(content.get("faultaddress")) or _text(content.get("responseaddress")),
        types=tuple(types),
        event=_lowered(event),
    )


def write(envelope: SentEnvelope, *, sent_at: datetime | None = None) -> bytes:
    """The message in the strict form."""
    content = {
        "messageId": envelope.message_id,
        "requestId": None,
        "correlationId": None,
        "conversationId": _guid(envelope.conversation_id) or envelope.message_id,
        "initiatorId": _guid(envelope.initiator_id),
        "sourceAddress": envelope.source,
        "destinationAddress": envelope.destination,
        "responseAddress": None,
        "faultAddress": None,
        "messageType": [envelope.type],
        "message": dict(envelope.event),
        "expirationTime": None,
        "sentTime": moment_text(sent_at),
        "headers": dict(envelope.headers),
        "host": _host(),
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def fault(request: ReceivedEnvelope, *, message_id: str, source: str, destination: str, reason: str) -> bytes:
    """MassTransit's `Fault<T>`: the message that tells that a message could not be consumed."""
    types = request.types or ("object",)
    event = {
        "faultId": message_id,
        "faultedMessageId": _guid(request.message_id),
        "timestamp": moment_text(),
        "exceptions": [{"exceptionType": "Lamina.PoisonError", "message": reason[:_LONGEST_REASON]}],
        "host": _host(),
        "faultMessageTypes": list(types),
        "message": dict(request.event),
    }
    generic = f"{_URN}MassTransit:Fault[[{types[0].removeprefix(_URN)}]]"
    sent = SentEnvelope(
        message_id=message_id,
        conversation_id=request.conversation_id,
        initiator_id="",
        source=source,
        destination=destination,
        type=generic,
        event=event,
    )
    return write(sent)


def republished(body: bytes) -> tuple[str, bytes]:
    """A message of ours under a new id, and that id: for a result that its receiver threw away before it knew of the job.

    To be used once, and only while the receiver still waits: one that had the first takes the second for an error. Publishing it
    twice is one message, as the new id follows from the old.
    """
    content = json.loads(body)
    message_id = str(uuid5(_REPUBLISHED, content["messageId"]))
    return message_id, json.dumps({**content, "messageId": message_id}, ensure_ascii=False, separators=(",", ":")).encode()


def error_attributes(reason: str, *, queue: str) -> dict[str, str]:
    """MassTransit's own headers of a message in an `_error` queue."""
    return {
        "MT-Reason": "fault",
        "MT-Fault-ExceptionType": "Lamina.PoisonError",
        "MT-Fault-Message": _one_line(reason),
        "MT-Fault-Timestamp": moment_text(),
        "MT-Fault-InputAddress": queue,
    }


def is_of_an_error(name: str) -> bool:
    """Whether a header was added when its message was put aside."""
    return name.lower().startswith(("mt-fault-", "mt-reason"))


def error_text(attributes: Mapping[str, str]) -> str:
    """Why a message was put aside; empty when it says nothing."""
    named = {name.lower(): value for name, value in attributes.items()}
    parts = (named.get("mt-fault-exceptiontype"), named.get("mt-fault-message"))
    return ": ".join(part for part in parts if part) or named.get("mt-reason", "")


def input_address(attributes: Mapping[str, str]) -> str:
    """Where a message lay before it was put aside, as a name or an address; empty when it says nothing."""
    return next((value for name, value in attributes.items() if name.lower() == "mt-fault-inputaddress"), "")


def died_at(attributes: Mapping[str, str]) -> float | None:
    """When a message was put aside, in seconds since 1970; None when it says nothing."""
    told = next((value for name, value in attributes.items() if name.lower() == "mt-fault-timestamp"), "")
    try:
        return datetime.fromisoformat(told).timestamp()
    except ValueError:
        return None


def skipped_attributes() -> dict[str, str]:
    """MassTransit's own header of a message in a `_skipped` queue."""
    return {"MT-Reason": "skipped"}


def _unwrapped(body: bytes) -> dict[str, Any]:
    """The envelope with names in lower case, out of what SNS may have wrapped around it."""
    try:
        content = json.loads(sns.unwrapped(body))
    except (ValueError, RecursionError) as error:
        raise PoisonError(f"the message is not JSON ({error}); expected {_EXPECTED}.") from error
    if not isinstance(content, dict):
        raise PoisonError(f"the message is no JSON object; expected {_EXPECTED}.")
    return _lowered(content)


def _lowered(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in content.items()}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _guid(value: str) -> str | None:
    """A receiver throws over anything else in these fields."""
    try:
        return str(UUID(value))
    except ValueError:
        return None


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_REASON]


def _host() -> dict[str, Any]:
    return {"machineName": "lamina", "processName": "bridge", "processId": 0, "assembly": "lamina", "assemblyVersion": "0"}
