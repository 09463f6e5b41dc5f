"""Finds the system that a message is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bridge.envelopes import native
from bridge.errors import PoisonError
from bridge.job import UNREADABLE, Delivery, Job, Outcome
from bridge.systems.port import Context, Handler


class Recogniser(Handler, Protocol):
    """A system whose messages are not in our own envelope."""

    def recognises(self, delivery: Delivery) -> bool:
        """Whether a message is in this system's form, however broken it is."""


class Router:
    """Serves several systems from one queue. It reads a message's `system`, and leaves the rest to that system."""

    def __init__(self, handlers: Sequence[Handler], recognisers: Sequence[Recogniser] = ()) -> None:
        """`recognisers`: are asked first whether a message is theirs."""
        self._recognisers = tuple(recognisers)
        self._handlers = {handler.system: handler for handler in [*handlers, *recognisers]}

    @property
    def system(self) -> str:
        """The names of all."""
        return "|".join(self._handlers)

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`."""
        if reason := delivery.attributes.get(UNREADABLE):
            raise PoisonError(reason)
        for recogniser in self._recognisers:
            if recogniser.recognises(delivery):
                return recogniser.parse(delivery)
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
