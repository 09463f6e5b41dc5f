"""Subscriptions of a server of Pub/Sub that a test pulls from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bridge.google.access import PubsubAccess
from bridge.google.pulled import Patience
from bridge.sources.pubsub_pull import PubsubSource
from tests.support.patience import PATIENCE_SECONDS
from tests.support.servers.pubsub_server import PubsubServer

# They outlast whatever pause a machine makes, but where a test has them end.
LEASE_SECONDS = 600.0
PATIENT = Patience(linger_seconds=3600, silence_seconds=3600, close_seconds=PATIENCE_SECONDS)


@asynccontextmanager
async def pulling(
    server: PubsubServer, *subscriptions: str, lease_seconds: float = LEASE_SECONDS, patience: Patience = PATIENT
) -> AsyncIterator[PubsubSource]:
    """A source of messages; without names, of `jobs-sub`."""
    access = PubsubAccess(project="trial", emulator=server.address)
    source = PubsubSource(access, subscriptions or ("jobs-sub",), lease_seconds=lease_seconds, patience=patience)
    try:
        yield source
    finally:
        await source.close()
        await access.close()


async def until_waiting(source: PubsubSource, subscription: str) -> None:
    """Until a message of the subscription has arrived here, and not only on its way, for the next who asks."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(level.waiting for level in await source.levels() if level.queue == subscription):
            await asyncio.sleep(0.005)
