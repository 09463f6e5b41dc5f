"""Lists of Redis."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from redis.asyncio import Redis

from bridge.redis.access import RedisAccess
from bridge.sources.redis_list import ListKeys, RedisSource
from tests.support.bridge.sources.local import over_the_line, shared_database
from tests.support.bridge.sources.port import IN_A_ROW, LEASE_SECONDS, Find, Lines, Rig, SourceAtHand, SourceKind


@asynccontextmanager
async def _at_hand(find: Find, folder: Path) -> AsyncIterator[SourceAtHand]:
    accesses = [RedisAccess(find("redis").url) for _ in range(2)]
    queues = [ListKeys.of(f"{uuid4()}:{urgency}") for urgency in range(3)]
    sources = [RedisSource(access, queues, lease_seconds=LEASE_SECONDS, urgent_in_a_row=IN_A_ROW) for access in accesses]

    async def send(body: bytes, priority: int = 0) -> None:
        await sources[0].send(str(uuid4()), body, attributes={"kind": "test"}, queue=queues[min(priority // 4, 2)].queue)

    yield SourceAtHand(source=sources[0], rival=sources[1], send=send, levels=sources[0].levels)
    for source, access in zip(sources, accesses, strict=True):
        await source.close()
        await access.close()


@asynccontextmanager
async def _rig(find: Find, folder: Path, lines: Lines) -> AsyncIterator[Rig]:
    server, prefix, database = find("redis"), str(uuid4()), shared_database(find)
    # As the card platform has them: two lists in which equal items are one job, and locks that outlive their holders.
    shared = {"locks": f"{prefix}:lock:", "correlation": f"{prefix}:correlation"}
    names = (f"{prefix}:jobs", f"{prefix}:others")
    twins = {name: {**shared, "twin": other} for name, other in zip(names, names[::-1], strict=True)}
    keys = [ListKeys.of(name, **others) for name, others in twins.items()]
    settings = {
        "database": await over_the_line(find, lines, database),
        "redis_queues": names,
        "redis_keys": twins,
        "redis_lock_seconds": 600,
        "redis_url": f"redis://127.0.0.1:{await lines.to('queue', server.port)}/0",
        "redis_result_key": f"{prefix}:results:{{message_id}}",
    }
    access, client = RedisAccess(server.url), Redis.from_url(server.url)
    queue = RedisSource(access, keys, lease_seconds=LEASE_SECONDS)
    plain = itertools.cycle((True, False))

    async def send(body: bytes) -> None:
        """By turns as other programs do, in both lists, and as we do."""
        if next(plain):
            for name in names:
                await client.rpush(name, body)
        else:
            await queue.send(str(uuid4()), body)

    async def redeliver() -> None:
        for each in keys:
            if items := await client.zrange(each.leases, 0, -1):
                await client.zadd(each.leases, dict.fromkeys(items, 0.0), xx=True)

    async def left() -> int:
        """What jobs leave behind counts as well: a lock would keep others from the item, an id would make it the same job again."""
        behind = [key async for key in client.scan_iter(f"{prefix}:lock:*")]
        return await queue.depth() + len(behind) + await client.hlen(shared["correlation"])

    async def arrived() -> Sequence[tuple[str, bytes]]:
        found = [key async for key in client.scan_iter(f"{prefix}:results:*") if b":sent:" not in key]
        return [(key.decode().rpartition(":")[2], bytes(await client.get(key) or b"")) for key in found]

    try:
        yield Rig(database=database, settings=lambda: settings, send=send, redeliver=redeliver, left=left, arrived=arrived)
    finally:
        await client.aclose()
        await access.close()


REDIS = SourceKind(adapter="redis_list", lines=frozenset({"database", "queue", "inference"}), at_hand=_at_hand, rig=_rig)
