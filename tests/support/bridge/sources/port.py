"""What the tests of every source need of one: to talk to it alone, and to start real bridges on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge.sources.port import QueueLevel, Source
from tests.support.servers.fault_proxy import FaultProxy

# Of sources that are talked to alone: short, and yet longer than a busy machine's hiccups.
LEASE_SECONDS = 0.6
# After so many messages of one urgency the next gets its turn.
IN_A_ROW = 3
# Finds a server of the whole session by the name of its fixture, and starts it when nobody has yet.
Find = Callable[[str], Any]


@dataclass(frozen=True, kw_only=True)
class SourceAtHand:
    """A source, and how to put messages into its queue."""

    source: Source
    # Another receiver of the same queue.
    rival: Source
    # Body and priority.
    send: Callable[[bytes, int], Awaitable[None]]
    # What the source says of its queues.
    levels: Callable[[], Awaitable[Sequence[QueueLevel]]]
    # Whether what comes again may come to whoever was served before, and not only to whoever asks now.
    comes_to_either: bool = False


class Lines:
    """The lines between a trial's bridges and their servers. One of them may have a proxy in it, which can be made to misbehave."""

    def __init__(self, stack: AsyncExitStack, *, faulty: str = "") -> None:
        """`faulty`: the name of the line with the proxy; empty for none."""
        self._stack = stack
        self._faulty = faulty
        self._proxy: FaultProxy | None = None

    @property
    def proxy(self) -> FaultProxy:
        """The proxy in the faulty line."""
        assert self._proxy is not None, f"nobody has drawn the line {self._faulty!r}"
        return self._proxy

    async def to(self, name: str, port: int) -> int:
        """The port by which a server of this machine is reached over the line `name`."""
        if name != self._faulty:
            return port
        self._proxy = await self._stack.enter_async_context(FaultProxy(port))
        return self._proxy.port


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A queue that real bridges can be started on, and what there is to see and to stir from outside."""

    # Of the ledger, without a detour.
    database: str
    # What a bridge needs to know, asked for anew by each that starts.
    settings: Callable[[], Mapping[str, Any]]
    # Puts a message into the queue, under an id of its own.
    send: Callable[[bytes], Awaitable[None]]
    # Lets the queue deliver at once, and under the same id, what bridges have; does nothing where no queue can be made to.
    redeliver: Callable[[], Awaitable[None]]
    # Messages that are not acknowledged, whoever has them.
    left: Callable[[], Awaitable[int]]
    # Results as they came: message ids and bodies.
    arrived: Callable[[], Awaitable[Sequence[tuple[str, bytes]]]]
    # Of whoever signs pushes, by the id of the key.
    certificates: Mapping[str, str] = field(default_factory=dict)
    # Bodies of what was put aside beside the ledger's dead letters; None where that is no custom.
    put_aside: Callable[[], Awaitable[Sequence[bytes]]] | None = None


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """One kind of source."""

    # The module of bridge.sources that it proves.
    adapter: str
    # What may be cut: database, queue, inference.
    lines: frozenset[str]
    # Opens it in this process. The folder is the test's own.
    at_hand: Callable[[Find, Path], AbstractAsyncContextManager[SourceAtHand]]
    # Sets it up for bridges, over these lines.
    rig: Callable[[Find, Path, Lines], AbstractAsyncContextManager[Rig]]
    # Whether urgent messages overtake others.
    knows_urgency: bool = True


async def no_redelivery() -> None:
    """Of a queue whose redeliveries only its own clock brings about."""
