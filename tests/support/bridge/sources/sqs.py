"""Queues of SQS."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from bridge.settings import load
from bridge.sinks.sqs import SqsQueues
from bridge.sources.sqs import SqsSource
from bridge.transports.aws import levels as sqs_levels
from tests.support.bridge.sources.local import over_the_line, shared_database
from tests.support.bridge.sources.port import IN_A_ROW, LEASE_SECONDS, Find, Lines, Rig, SourceAtHand, SourceKind, no_redelivery
from tests.support.servers.sqs import aws_of, depth_of, fresh_queue, lying_in


@asynccontextmanager
async def _at_hand(find: Find, folder: Path) -> AsyncIterator[SourceAtHand]:
    async with aws_of(find("ministack")) as aws:
        # Three urgencies, each a queue of its own.
        queues = [await fresh_queue(aws) for _ in range(3)]
        sender = SqsQueues(aws)
        sources = [SqsSource(aws, queues, lease_seconds=LEASE_SECONDS, urgent_in_a_row=IN_A_ROW) for _ in range(2)]

        async def send(body: bytes, priority: int = 0) -> None:
            await sender.send(queues[min(priority // 4, 2)], body, message_id=str(uuid4()), attributes={"kind": "test"})

        levels = partial(sqs_levels, aws, load(sqs_queues=",".join(queues)), sources[0].freshness)
        yield SourceAtHand(source=sources[0], rival=sources[1], send=send, levels=levels)
        for source in sources:
            await source.close()


@asynccontextmanager
async def _rig(find: Find, folder: Path, lines: Lines) -> AsyncIterator[Rig]:
    ministack = find("ministack")
    database = shared_database(find)
    reached = await over_the_line(find, lines, database)
    port = await lines.to("queue", urlsplit(ministack.endpoint).port or 0)
    async with aws_of(ministack) as aws:
        queue, results = await fresh_queue(aws), await fresh_queue(aws)
        for suffix in ("_error", "_skipped"):
            await fresh_queue(aws, name=f"{queue}{suffix}")
        sender = SqsQueues(aws)
        settings = {"database": reached, "sqs_queues": (queue,), "results_queue": results, "aws_endpoint": f"http://127.0.0.1:{port}"}

        async def send(body: bytes) -> None:
            await sender.send(queue, body, message_id=str(uuid4()))

        async def left() -> int:
            return await depth_of(aws, queue)

        async def arrived() -> Sequence[tuple[str, bytes]]:
            return [(attributes["MessageId"], body) for attributes, body in await lying_in(aws, results)]

        async def put_aside() -> Sequence[bytes]:
            return [body for _, body in await lying_in(aws, f"{queue}_error")]

        yield Rig(
            database=database,
            settings=lambda: settings,
            send=send,
            redeliver=no_redelivery,
            left=left,
            arrived=arrived,
            put_aside=put_aside,
        )


SQS = SourceKind(adapter="sqs", lines=frozenset({"database", "queue", "inference"}), at_hand=_at_hand, rig=_rig)
