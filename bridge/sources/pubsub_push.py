"""Takes jobs that Pub/Sub pushes into the queue of the database, which a local source delivers."""

from __future__ import annotations

from typing import Protocol

from bridge.database.local_queue import LocalQueue
from bridge.envelopes import pubsub_push
from bridge.errors import OverloadError
from bridge.google.refusals import NotAuthenticatedError

# The attribute that a message with an ordering key carries it in.
ORDERING_KEY = "OrderingKey"
_RETRY_SECONDS = 10.0


class Verifier(Protocol):
    """Tells whether a token is Google's, made for us by the right account."""

    async def verify(self, token: str) -> None:
        """Raise `NotAuthenticatedError`, `NotAllowedError` or `TransientError`."""


class PushInbox:
    """Commits what is pushed before it is confirmed. A message that is pushed again while it waits is kept once."""

    def __init__(self, queue: LocalQueue, verifier: Verifier, *, limit: int = 1000) -> None:
        """`limit`: messages that may wait; beyond them pushes are refused, and Pub/Sub slows down."""
        self._queue = queue
        self._verifier = verifier
        self._limit = limit

    async def accept(self, content: bytes) -> bool:
        """Keep a push, and return once it is committed; false when it lay there already.

        Raises `PoisonError`, `OverloadError`, `TransientError`.
        """
        pushed = pubsub_push.read(content)
        if await self._queue.depth() >= self._limit:
            raise OverloadError(f"{self._limit} messages wait already (BRIDGE_PUBSUB_PUSH_LIMIT)", retry_after=_RETRY_SECONDS)
        order = {ORDERING_KEY: pushed.ordering_key} if pushed.ordering_key else {}
        message_id = f"{pushed.subscription}/{pushed.message_id}"
        return await self._queue.send(message_id, pushed.body, attributes={**pushed.attributes, **order})

    async def check(self, authorization: str) -> None:
        """Let pass who may push; comes before `accept`. `authorization`: the header.

        Raises `NotAuthenticatedError`, `NotAllowedError`, `TransientError`.
        """
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NotAuthenticatedError("the push carries no token; have the subscription authenticate its pushes (OIDC)")
        await self._verifier.verify(token.strip())
