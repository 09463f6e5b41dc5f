"""Tells every inference server what people have said that names of lab tests mean."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import structlog

from bridge.errors import BridgeError, PermanentError
from bridge.inference.client import InferenceClient
from bridge.inference.credentials import ServerTrust
from bridge.inference.labs import Alias
from bridge.inference.policies import RetryPolicy
from bridge.inference.replicas import Replica, replicas
from bridge.pauses import stopped
from bridge.records.lab_reviews import LabReviews

_log = structlog.get_logger()
_REQUEST = "reviewed names"
# Names of one call.
_PORTION = 500


class AliasFeed:
    """Tells all that was decided again and again: a server that has just begun, or lost its disk, learns it like the others.

    What a server knows already costs it next to nothing. Any number of bridges may run it.
    """

    def __init__(self, reviews: LabReviews, address: str, *, trust: ServerTrust | None = None, every_seconds: float) -> None:
        """`address`: of one inference server, or of several behind one name."""
        self._reviews = reviews
        self._address = address
        self._trust = trust
        self._every_seconds = every_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Tell them until `stop`."""
        while not stop.is_set():
            try:
                await self.tell(await self._reviews.decided())
            except BridgeError as error:
                _log.warning("aliases_not_told", error=str(error))
            await stopped(stop, self._every_seconds * random.uniform(0.8, 1.2))  # noqa: S311  (no secret)

    async def tell_strictly(self, alias: Alias) -> int:
        """Tell each server one name now; returns how many there are.

        Raises `PermanentError` when one cannot take it, `OverloadError` when one is away or refuses our token, `TransientError`.
        """
        places = await replicas(self._address)
        for place in places:
            async with self._client(place) as client:
                await client.upsert_aliases([alias], request_id=_REQUEST)
        return len(places)

    async def tell(self, aliases: Sequence[Alias]) -> int:
        """Tell each server that answers; returns how many there are. Raises `OverloadError` when the name stands for none."""
        if not aliases:
            return 0
        told = await asyncio.gather(*(self._tell_one(place, aliases) for place in await replicas(self._address)))
        return sum(told)

    async def _tell_one(self, place: Replica, aliases: Sequence[Alias]) -> bool:
        try:
            async with self._client(place) as client:
                for start in range(0, len(aliases), _PORTION):
                    await self._tell_some(client, aliases[start : start + _PORTION])
        except BridgeError as error:
            _log.warning("aliases_not_told", server=place.address, error=str(error))
            return False
        return True

    def _client(self, place: Replica) -> InferenceClient:
        return InferenceClient(place.address, trust=self._trust, retries=RetryPolicy(attempts=1), server_name=place.name)

    async def _tell_some(self, client: InferenceClient, aliases: Sequence[Alias]) -> None:
        """Those that a server cannot take, such as codes that its catalogue lacks, keep no others from it."""
        try:
            await client.upsert_aliases(aliases, request_id=_REQUEST)
        except PermanentError as error:
            if len(aliases) == 1:
                _log.warning("alias_refused", name=aliases[0].name, code=aliases[0].code, error=str(error))
                return
            half = len(aliases) // 2
            await self._tell_some(client, aliases[:half])
            await self._tell_some(client, aliases[half:])
