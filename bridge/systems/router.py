"""Finds the system that a message is for."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.envelopes import native
from bridge.errors import PoisonError
from bridge.job import Delivery, Job, Outcome
from bridge.systems.port import Context, Handler


class Router:
    """Serves several systems from one queue. It reads a message's `system`, and leaves the rest to that system."""

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self._handlers = {handler.system: handler for handler in handlers}

    @property
    def system(self) -> str:
        """The names of all."""
        return "|".join(self._handlers)

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        system = native.read(delivery.body).system
        handler = self._handlers.get(system)
        if handler is None:
            served = ", ".join(self._handlers)
            raise PoisonError(f"the message is for the system {system!r}, which is not served here; expected one of {served}.")
        return handler.parse(delivery)

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Do the work."""
        return await self._handlers[job.system].handle(job, context)

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a job that is given up."""
        return self._handlers[job.system].failure(job, reason)
