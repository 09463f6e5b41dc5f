"""The envelope of Pub/Sub's pushes: `{"message": {"data": "…", "messageId": "…", "attributes": {…}}, "subscription": "…"}`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AliasChoices, Field, ValidationError

from bridge.envelopes.message import Message
from bridge.errors import PoisonError

_EXPECTED = '{"message": {"data": "base64…", "messageId": "…", "attributes": {…}}, "subscription": "projects/…/subscriptions/…"}'
Name = Annotated[str, Field(min_length=1, max_length=1024)]


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """A message as it was pushed."""

    # Pub/Sub's own; the same for every push of the message.
    message_id: str
    # The full name.
    subscription: str
    body: bytes
    attributes: Mapping[str, str]
    ordering_key: str


class _Message(Message):
    # Both spellings come: https://cloud.google.com/pubsub/docs/push#receive_push
    message_id: Name = Field(validation_alias=AliasChoices("messageId", "message_id"))
    data: str = ""
    attributes: dict[str, str] = Field(default_factory=dict)
    ordering_key: str = Field(default="", validation_alias=AliasChoices("orderingKey", "ordering_key"))


class _Push(Message):
    message: _Message
    subscription: Name


def read(content: bytes) -> Pushed:
    """Open a push. Raises `PoisonError`, naming the field and what was expected."""
    try:
        push = _Push.model_validate_json(content)
        body = base64.b64decode(push.message.data, validate=True)
    except ValidationError as error:
        # The values are left out: they may be personal, and this text is logged.
        problems = [f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg']}" for problem in error.errors(include_input=False)]
        raise PoisonError(f"the push is not right: {'; '.join(problems[:3])}. Expected {_EXPECTED}.") from None
    except binascii.Error as error:
        raise PoisonError(f"the push's message.data is not base64 ({error}). Expected {_EXPECTED}.") from error
    return Pushed(
        message_id=push.message.message_id,
        subscription=push.subscription,
        body=body,
        attributes=push.message.attributes,
        ordering_key=push.message.ordering_key,
    )
