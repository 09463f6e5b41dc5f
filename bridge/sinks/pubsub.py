"""Results to topics of Pub/Sub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.errors import PermanentError
from bridge.job import Message
from bridge.sinks.identified import identified

if TYPE_CHECKING:
    from bridge.google.access import PubsubAccess

# What Pub/Sub takes: bytes of a body, attributes of a message, bytes of an attribute's name and of its value.
_LARGEST_BODY = 10_000_000
_MOST_ATTRIBUTES, _LONGEST_NAME, _LONGEST_VALUE = 100, 256, 1024
# A message says with this attribute that it wants to be kept in order with others of the same value.
ORDERING_KEY = "OrderingKey"


class PubsubSink:
    """Publishes each message to its topic, under its id as the attribute `MessageId`: a message sent twice has one id."""

    def __init__(self, access: PubsubAccess, *, topic: str = "results") -> None:
        """`topic`: takes the messages that name no destination."""
        self._access = access
        self._topic = topic

    async def send(self, message: Message) -> None:
        """Publish, and return once Pub/Sub has it. Raises `TransientError`, `PermanentError`, `ConfigurationError`."""
        attributes = identified(message)
        ordering_key = attributes.pop(ORDERING_KEY, "")
        if len(message.body) > _LARGEST_BODY:
            raise PermanentError(f"the message has {len(message.body)} bytes; at most {_LARGEST_BODY} go through Pub/Sub")
        too_long = [
            name for name, value in attributes.items() if len(name.encode()) > _LONGEST_NAME or len(value.encode()) > _LONGEST_VALUE
        ]
        if len(attributes) > _MOST_ATTRIBUTES or too_long:
            raise PermanentError(
                f"the message has {len(attributes)} attributes, too long are {too_long}; Pub/Sub takes {_MOST_ATTRIBUTES}, "
                f"with names of {_LONGEST_NAME} and values of {_LONGEST_VALUE} bytes"
            )
        await self._access.publish(message.destination or self._topic, message.body, attributes=attributes, ordering_key=ordering_key)
