"""A bridge with the trial system in the test's own process, which answers over HTTP."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bridge.app import Bridge, local_transport
from bridge.served import Systems
from bridge.settings import load
from bridge.store import Store, open_store
from bridge.transports.opening import open_transport
from tests.support.bridge.trial_bridge import TrialHandler, trial_settings
from tests.support.ports import free_address


@asynccontextmanager
async def answering_bridge(folder: Path, **changes: Any) -> AsyncIterator[tuple[str, Store]]:
    """One that runs, and its address and store; `changes`: of its settings."""
    address = free_address()
    settings = load(**trial_settings(folder, http=address, **changes))
    stop = asyncio.Event()
    async with open_store(settings) as store, open_transport(settings, local=local_transport(settings, store)) as transport:
        systems = Systems(handlers=[TrialHandler()], probes={}, servers=lambda: {"serving": 1, "away": 0}, escalations=_escalations)
        bridge = Bridge(settings, store, systems, transport=transport)
        running = asyncio.create_task(bridge.run(stop, asyncio.Event()))
        try:
            await until_it_answers(address)
            yield address, store
        finally:
            stop.set()
            await asyncio.wait_for(running, 60)


async def _escalations() -> dict[str, int]:
    return {"waiting": 3, "dead": 1}


async def figures_of(address: str) -> str:
    """What `/metrics` of either program answers to Prometheus."""

    def get() -> str:
        asked = urllib.request.Request(f"http://{address}/metrics", headers={"Accept": "text/plain"})
        with urllib.request.urlopen(asked, timeout=60) as reply:
            return str(reply.read().decode())

    return await asyncio.to_thread(get)


async def until_it_answers(address: str) -> None:
    """Until the bridge of this address has started."""
    async with asyncio.timeout(60):
        while True:
            try:
                await figures_of(address)
                return
            except urllib.error.URLError:
                await asyncio.sleep(0.05)
