"""Subscriptions of Pub/Sub that push: what is pushed lies in the embedded queue until a bridge has done it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from bridge.google.tokens import TokenVerifier
from bridge.settings import load
from bridge.sources.local import LocalSource
from bridge.sources.pubsub_push import PushInbox
from bridge.store import open_store
from tests.support.bridge.sources.local import let_leases_run_out, over_the_line, results_in, shared_database
from tests.support.bridge.sources.port import IN_A_ROW, LEASE_SECONDS, Find, Lines, Rig, SourceAtHand, SourceKind
from tests.support.patience import PATIENCE_SECONDS
from tests.support.ports import free_port
from tests.support.servers.google_tokens import ACCOUNT, AUDIENCE, Signer

# How long a push waits for its answer, and then for its next try.
_ANSWER_SECONDS, _PAUSE_SECONDS = 3.0, 0.1
# One key for all: it takes a while to make.
signer = cache(Signer)


def envelope(message_id: str, body: bytes, **message: Any) -> bytes:
    """A push as Pub/Sub sends it."""
    data = {
        "data": base64.b64encode(body).decode(),
        "messageId": message_id,
        "message_id": message_id,
        "publishTime": "2026-01-01T00:00:00Z",
    }
    return json.dumps({"message": {**data, **message}, "subscription": "projects/trial/subscriptions/jobs-push"}).encode()


class Pusher:
    """Pushes over HTTP as Pub/Sub does: each message until it is confirmed."""

    def __init__(self) -> None:
        # Where to.
        self.port = 0
        # Everything that was pushed, by message id.
        self._messages: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._tries: set[asyncio.Task[int]] = set()

    @property
    def pending(self) -> int:
        """Messages that nobody has confirmed, or tries that a bridge has not answered: what it was given it may keep after we gave up."""
        return max(len(self._tasks), len(self._tries))

    def push(self, body: bytes) -> None:
        """Begin with a message."""
        message_id = str(uuid4())
        self._messages[message_id] = body
        self._begin(message_id)

    def push_again(self) -> None:
        """Push everything once more, the newest first."""
        for message_id in reversed(list(self._messages)):
            self._begin(message_id)

    async def close(self) -> None:
        """Give up."""
        tasks = self._tasks | self._tries
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, message_id: str) -> None:
        task = asyncio.create_task(self._until_confirmed(message_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_confirmed(self, message_id: str) -> None:
        content = envelope(message_id, self._messages[message_id])
        while await self._status(content) != 204:
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _status(self, content: bytes) -> int:
        """Of the answer; 0 when there is none."""
        head = f"POST /push HTTP/1.1\r\nHost: bridge\r\nAuthorization: Bearer {signer().token()}\r\nContent-Length: {len(content)}\r\n"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return 0
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + content)
        answer = asyncio.create_task(_answer(reader, writer))
        self._tries.add(answer)
        answer.add_done_callback(self._tries.discard)
        done, _ = await asyncio.wait({answer}, timeout=_ANSWER_SECONDS)
        return answer.result() if done else 0


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """The status of the answer on a connection, which is closed then; 0 when the connection ends without one."""
    try:
        return int((await reader.readline()).split()[1])
    except (OSError, IndexError):
        return 0
    finally:
        writer.close()


@asynccontextmanager
async def _at_hand(find: Find, folder: Path) -> AsyncIterator[SourceAtHand]:
    async with open_store(load(database=shared_database(find)), patience_seconds=PATIENCE_SECONDS) as store:
        verifier = TokenVerifier(audience=AUDIENCE, account=ACCOUNT, fetch=signer().certificates)
        inbox = PushInbox(store.queue, verifier)

        async def send(body: bytes, priority: int = 0) -> None:
            await inbox.accept(envelope(str(uuid4()), body, attributes={"kind": "test"}))

        sources = [LocalSource(store.queue, lease_seconds=LEASE_SECONDS, urgent_in_a_row=IN_A_ROW) for _ in range(2)]
        yield SourceAtHand(source=sources[0], rival=sources[1], send=send, levels=sources[0].levels)


@asynccontextmanager
async def _rig(find: Find, folder: Path, lines: Lines) -> AsyncIterator[Rig]:
    database = shared_database(find)
    reached = await over_the_line(find, lines, database)
    pusher = Pusher()
    line = await lines.to("queue", 0)

    def settings() -> dict[str, Any]:
        # Each bridge listens for itself; pushes go to the newest, as behind a balancer.
        port = free_port()
        if line:
            pusher.port, lines.proxy.target_port = line, port
        else:
            pusher.port = port
        pushes = {"pubsub_push_audience": AUDIENCE, "pubsub_push_account": ACCOUNT}
        return {"database": reached, "http": f"127.0.0.1:{port}", **pushes}

    async with open_store(load(database=database), patience_seconds=PATIENCE_SECONDS) as store:

        async def send(body: bytes) -> None:
            pusher.push(body)

        async def redeliver() -> None:
            pusher.push_again()
            await let_leases_run_out(store)

        async def left() -> int:
            return pusher.pending + await store.queue.depth()

        async def arrived() -> Sequence[tuple[str, bytes]]:
            return await results_in(store)

        try:
            yield Rig(
                database=database,
                settings=settings,
                send=send,
                redeliver=redeliver,
                left=left,
                arrived=arrived,
                certificates=signer().certificates(),
            )
        finally:
            await pusher.close()


PUBSUB_PUSH = SourceKind(
    adapter="pubsub_push", lines=frozenset({"database", "queue", "inference"}), at_hand=_at_hand, rig=_rig, knows_urgency=False
)
