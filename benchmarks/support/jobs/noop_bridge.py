"""The whole bridge with a system whose jobs do nothing: each is claimed, ended with one event, sent and acknowledged."""

from __future__ import annotations

import asyncio

from bridge import logs
from bridge.app import Bridge, local_transport, run_until_signalled
from bridge.envelopes import native
from bridge.job import Delivery, Job, Outcome
from bridge.served import Systems
from bridge.settings import load
from bridge.store import open_store
from bridge.systems.native import completed, failed
from bridge.systems.port import Context
from bridge.transports.opening import open_transport

SYSTEM = "noop"


class NoopHandler:
    """Answers at once."""

    system = SYSTEM

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        envelope = native.read(delivery.body)
        return Job(key=envelope.key, system=SYSTEM, request=envelope.request)

    async def handle(self, job: Job, _context: Context) -> Outcome:
        """Do nothing."""
        return completed(job, {"ok": True})

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a job that is given up."""
        return failed(job, error="nothing could not be done", reason=reason)


async def main() -> None:
    """Run until SIGTERM, by the settings of the environment."""
    settings = load()
    logs.configure(settings.log_level)
    async with open_store(settings) as store, open_transport(settings, local=local_transport(settings, store)) as transport:
        await run_until_signalled(Bridge(settings, store, Systems(handlers=[NoopHandler()]), transport=transport))


if __name__ == "__main__":
    asyncio.run(main())
