"""One streaming pull."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from uuid import uuid4

import structlog
from google.pubsub_v1.types import ReceivedMessage, StreamingPullRequest

from bridge.errors import BridgeError, TransientError
from bridge.google.access import PubsubAccess

_log = structlog.get_logger()
# What Pub/Sub allows as the first lease of a stream, in seconds.
_SHORTEST_LEASE, _LONGEST_LEASE = 10, 600
# How often the server is asked for a sign of life.
_BEAT_SECONDS = 30.0
# What is on its way to a stream has come after so long.
_IDLE_SECONDS = 1.0
# From this version on the server answers that.
_PROTOCOL_VERSION = 1


class PullStream:
    """Hands over what arrives, until it is closed, breaks, or nothing has come for too long. It is used once."""

    def __init__(
        self,
        access: PubsubAccess,
        subscription: str,
        *,
        capacity: int,
        lease_seconds: float,
        silence_seconds: float,
        arrived: Callable[[Sequence[ReceivedMessage]], None],
        ended: Callable[[], None],
    ) -> None:
        """`capacity`: messages that may be out at once. `silence_seconds`: after so long without a sign of life it ends."""
        self.capacity = capacity
        # Acknowledgement ids of what came by it and is still out.
        self.out: set[str] = set()
        # Until when what nobody works on is out for the server all the same, and holds a place; by acknowledgement id.
        self._held: dict[str, float] = {}
        self.opened_at = self._stirred_at = _now()
        # Why it broke.
        self.failure: BridgeError | None = None
        self._access = access
        self._subscription = subscription
        self._lease_seconds = lease_seconds
        self._silence_seconds = silence_seconds
        self._arrived = arrived
        self._task = asyncio.create_task(self._run(), name=f"pull {subscription}")
        self._task.add_done_callback(lambda _task: ended())

    @property
    def open(self) -> bool:
        """Whether messages may still come."""
        return not self._task.done()

    @property
    def free(self) -> int:
        """How many more may come."""
        return self.capacity - len(self.out) - self._holding

    @property
    def blocked(self) -> bool:
        """Whether places are held that come free when nobody may want them, and nothing is on its way that would be lost with it."""
        return self._holding > 0 and (self.free <= 0 or self.idle)

    @property
    def idle(self) -> bool:
        """Whether nothing came for a moment, and no place became free."""
        return _now() - self._stirred_at > _IDLE_SECONDS

    def settle(self, ack_id: str) -> None:
        """A message is not out any more, and holds no place."""
        if ack_id in self.out or ack_id in self._held:
            self.out.discard(ack_id)
            self._held.pop(ack_id, None)
            self._stirred_at = _now()

    def hold(self, ack_id: str, *, seconds: float) -> None:
        """Nobody works on a message, and the server keeps its place for so long."""
        if ack_id in self.out:
            self.out.remove(ack_id)
            self._held = {held: until for held, until in self._held.items() if until > _now()}
            self._held[ack_id] = _now() + seconds

    @property
    def _holding(self) -> int:
        return sum(until > _now() for until in self._held.values())

    async def close(self, *, seconds: float) -> None:
        """End it, and wait for that but not longer."""
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=seconds)

    async def _run(self) -> None:
        try:
            async with aclosing(self._access.stream(self._requests(), self._subscription)) as responses:  # type: ignore[type-var]
                while True:
                    async with asyncio.timeout(self._silence_seconds):
                        response = await anext(responses)
                    if response.received_messages:
                        self._stirred_at = _now()
                        self.out.update(received.ack_id for received in response.received_messages)
                        self._arrived(list(response.received_messages))
        except StopAsyncIteration:
            self.failure = TransientError(f"Pub/Sub has ended the stream of {self._subscription}")
        except TimeoutError:
            _log.info("stream_silent", subscription=self._subscription, seconds=self._silence_seconds)
        except BridgeError as error:
            self.failure = error
        except Exception as error:
            _log.exception("stream_broke", subscription=self._subscription)
            self.failure = TransientError(f"the stream of {self._subscription} broke: {type(error).__name__}: {error}")

    async def _requests(self) -> AsyncIterator[StreamingPullRequest]:
        yield StreamingPullRequest(
            subscription=self._access.path("subscriptions", self._subscription),
            stream_ack_deadline_seconds=_first_lease(self._lease_seconds),
            max_outstanding_messages=self.capacity,
            client_id=str(uuid4()),
            protocol_version=_PROTOCOL_VERSION,
        )
        while True:
            await asyncio.sleep(min(_BEAT_SECONDS, self._silence_seconds / 3))
            yield StreamingPullRequest()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _first_lease(seconds: float) -> int:
    """The lease that a stream's messages come with: as wanted, as far as Pub/Sub allows it."""
    return max(_SHORTEST_LEASE, min(_LONGEST_LEASE, math.ceil(seconds)))
