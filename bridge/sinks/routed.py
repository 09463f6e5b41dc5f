"""Several sinks as one: a destination's scheme says which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from bridge.job import Message
from bridge.sinks.port import Sink


class RoutedSink:
    """Sends `sqs:queue`, `sns:topic` and `local:queue` to the sink of that name, and everything else to the default."""

    def __init__(self, default: Sink, by_scheme: Mapping[str, Sink]) -> None:
        """`default`: takes plain names, URLs, and messages that name no destination."""
        self._default = default
        self._by_scheme = by_scheme

    async def send(self, message: Message) -> None:
        """Send, and return once the other side has it. Raises as the sink does."""
        scheme, colon, rest = message.destination.partition(":")
        sink = self._by_scheme.get(scheme) if colon else None
        if sink is None:
            await self._default.send(message)
        else:
            await sink.send(replace(message, destination=rest))
