"""Does what many ask for at the same time in one go: one statement, one commit and one round trip instead of one for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from bridge.errors import BridgeError

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

# A batch that takes longer, in seconds, holds the next one up no further.
_PATIENCE_SECONDS = 0.1
_MOST = 64


class Gatherer(Generic[Asked, Answer]):
    """Nobody waits for company: what is asked for while a batch is under way makes the next one."""

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer | Exception]]],
        *,
        identity: Callable[[Asked], Hashable] | None = None,
        most: int = _MOST,
    ) -> None:
        """`work`: answers each of a batch, in order; an answer may be an error, and an error that it raises is everyone's.

        `identity`: two with the same never come into one batch. `most`: in one batch.
        """
        self._work = work
        self._identity = identity
        self._most = most
        self._waiting: list[tuple[Asked, asyncio.Future[Answer]]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._turn: asyncio.Task[None] | None = None

    async def ask(self, asked: Asked) -> Answer:
        """The answer to one, as soon as its batch is done. Raises as the work does."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        if self._turn is None or self._turn.done():
            self._turn = asyncio.create_task(self._take_turns(), name="gathering")
        return await answer

    async def _take_turns(self) -> None:
        while batch := self._next():
            task = asyncio.create_task(self._do(batch), name="batch")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            await asyncio.wait({task}, timeout=_PATIENCE_SECONDS)

    def _next(self) -> list[tuple[Asked, asyncio.Future[Answer]]]:
        """Those whose turn it is; whoever has gone away meanwhile is left out."""
        batch: list[tuple[Asked, asyncio.Future[Answer]]] = []
        later: list[tuple[Asked, asyncio.Future[Answer]]] = []
        seen: set[Hashable] = set()
        for asked, answer in self._waiting:
            if answer.done():
                continue
            identity = self._identity(asked) if self._identity else len(seen)
            if len(batch) >= self._most or identity in seen:
                later.append((asked, answer))
            else:
                seen.add(identity)
                batch.append((asked, answer))
        self._waiting = later
        return batch

    async def _do(self, batch: Sequence[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._work([asked for asked, _ in batch])
        except asyncio.CancelledError:
            for _, answer in batch:
                answer.cancel()
            raise
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, BridgeError):
                # One of them cannot be done, such as a value that the database does not take: it must not spoil the others.
                await asyncio.gather(*(self._do([one]) for one in batch))
                return
            answers = [error] * len(batch)
        for (_, waits), found in zip(batch, answers, strict=True):
            if waits.done():
                continue
            if isinstance(found, Exception):
                waits.set_exception(found)
            else:
                waits.set_result(found)
