"""What serves no more and still finishes what it was asked."""

from __future__ import annotations

import asyncio

from inference_server.scheduler.catalogue import Served

_GRACE_SECONDS = 60.0


class Retiring:
    """The versions that were replaced or taken out, by the task that closes each. Used on the event loop."""

    def __init__(self) -> None:
        self._models: dict[asyncio.Task[None], Served] = {}

    def retire(self, model: Served) -> asyncio.Task[None]:
        """Have a version finish what it has, within its grace; returns the task that does so."""
        closing = asyncio.get_running_loop().create_task(model.close(grace_seconds=_GRACE_SECONDS))
        self._models[closing] = model
        closing.add_done_callback(self._models.pop)
        return closing

    def all(self) -> tuple[Served, ...]:
        """Those that have not finished."""
        return tuple(self._models.values())

    async def wait(self) -> None:
        """Until all have, however they end."""
        await asyncio.gather(*self._models, return_exceptions=True)
