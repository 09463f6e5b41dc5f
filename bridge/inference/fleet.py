"""All inference servers behind one address: found by DNS, watched by their health, chosen by their load."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import structlog

from bridge.errors import BridgeError, OverloadError
from bridge.inference.policies import Watchfulness
from bridge.inference.replicas import Replica
from bridge.inference.server import Metadata, Server, Standing
from bridge.pauses import stopped

_log = structlog.get_logger()


class Fleet:
    """Finds servers that come and go. Its first use starts what watches them; closing ends that."""

    def __init__(
        self,
        resolve: Callable[[], Awaitable[Sequence[Replica]]],
        connect: Callable[[Replica], Server],
        *,
        metadata: Callable[[], Metadata],
        watchfulness: Watchfulness,
    ) -> None:
        """`resolve`: the places of now; raises `OverloadError`. `connect`: opens one. `metadata`: what health checks carry."""
        self._resolve = resolve
        self._connect = connect
        self._metadata = metadata
        self._watchfulness = watchfulness
        self._servers: dict[str, Server] = {}
        # Those that the name no longer stands for, while they end what they have.
        self._leaving: set[Server] = set()
        self._choices = 0
        self._follower: asyncio.Task[None] | None = None
        self._watchers: set[asyncio.Task[None]] = set()
        # Set when places should be looked up before that is due, and once the first ones have been looked at.
        self._asked = asyncio.Event()
        self._looked = asyncio.Event()
        self._unresolved: BridgeError | None = None

    def standings(self) -> Mapping[str, int]:
        """How many servers there are of each standing."""
        return {**dict.fromkeys((each.value for each in Standing), 0), **Counter(each.standing.value for each in self._servers.values())}

    async def choose(self, passed: Collection[Server] = ()) -> Server:
        """The best server that is not in `passed`: by its standing, then by its calls, then the one that was chosen longest ago.

        Raises `OverloadError` when there is none.
        """
        self._begin()
        if not any(each.standing is Standing.SERVING for each in self._servers.values()):
            await self._first_look()
        others = [each for each in self._servers.values() if each not in passed]
        if not others:
            raise OverloadError(str(self._unresolved or "no inference server is known now"))
        best = min(others, key=lambda each: (each.standing.rank, each.in_flight, each.chosen))
        self._choices += 1
        best.chosen = self._choices
        return best

    def has_other_than(self, passed: Collection[Server]) -> bool:
        """Whether a server that is not in `passed` may take a call at once."""
        usable = (Standing.SERVING, Standing.UNKNOWN)
        return any(each.standing in usable for each in self._servers.values() if each not in passed)

    async def look(self) -> bool:
        """Ask all servers now; returns whether one of them wants calls. Never raises because of them."""
        self._begin()
        await self._first_look()
        await asyncio.gather(*(self._look(each) for each in self._servers.values()))
        return any(each.standing in (Standing.SERVING, Standing.FULL) for each in self._servers.values())

    async def close(self) -> None:
        """End the watching, cancel all calls, and close the channels."""
        tasks = [*([self._follower] if self._follower else []), *self._watchers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(each.close() for each in (*self._servers.values(), *self._leaving)))

    def _begin(self) -> None:
        if self._follower is None or self._follower.done():
            self._follower = asyncio.create_task(self._follow(), name="inference servers")

    async def _first_look(self) -> None:
        """Wait until the first places have been looked at, but not for long."""
        if not self._looked.is_set():
            await stopped(self._looked, self._watchfulness.answer_seconds)
        self._asked.set()

    async def _follow(self) -> None:
        """Look the places up again and again."""
        while True:
            await self._update()
            self._asked.clear()
            # Whoever asks is answered at most once a second: a crowd of failing calls must not become a crowd of look-ups.
            await asyncio.sleep(self._watchfulness.again_seconds)
            await stopped(self._asked, self._watchfulness.resolve_seconds * random.uniform(0.8, 1.2))  # noqa: S311  (no secret)

    async def _update(self) -> None:
        try:
            async with asyncio.timeout(self._watchfulness.resolve_seconds):
                found = {replica.address: replica for replica in await self._resolve()}
        except (OverloadError, TimeoutError) as error:
            # A name that cannot be looked up now says nothing of the servers that are known.
            self._unresolved = error if isinstance(error, OverloadError) else OverloadError("the inference server's name is not answered")
            _log.warning("inference_servers_unknown", error=str(self._unresolved))
            self._looked.set()
            return
        self._unresolved = None
        for address in self._servers.keys() - found.keys():
            self._drop(address)
        for address in sorted(found.keys() - self._servers.keys()):
            self._add(found[address])
        if not self._servers:
            self._looked.set()

    def _add(self, replica: Replica) -> None:
        server = self._servers[replica.address] = self._connect(replica)
        task = asyncio.create_task(self._watch(server), name=f"health of {replica.address}")
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def _drop(self, address: str) -> None:
        server = self._servers.pop(address)
        self._leaving.add(server)
        server.doubted.set()
        _log.info("inference_server_gone", server=address, calls=server.in_flight)

    async def _watch(self, server: Server) -> None:
        """Look at a server again and again, until its name no longer stands for it and it has ended what it had."""
        while server not in self._leaving or server.in_flight:
            await self._look(server)
            if server.standing is Standing.SERVING or all(each.standing is not Standing.UNKNOWN for each in self._servers.values()):
                self._looked.set()
            wait = self._watchfulness.look_seconds if server.standing is Standing.SERVING else self._watchfulness.again_seconds
            await stopped(server.doubted, wait * random.uniform(0.8, 1.2))  # noqa: S311  (no secret)
        self._leaving.discard(server)
        await server.close()

    async def _look(self, server: Server) -> None:
        seconds = self._watchfulness
        await server.look(self._metadata(), answer_seconds=seconds.answer_seconds, silent_seconds=seconds.silent_seconds)
