"""When the ledger is pruned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bridge.errors import TransientError
from bridge.housekeeping import Housekeeper


class _Rounds:
    """Answers as told, then with nothing."""

    def __init__(self, answers: Sequence[int | Exception]) -> None:
        self._answers = list(answers)
        self.calls: list[float] = []

    async def prune(self, *, keep_seconds: float, limit: int = 500) -> int:
        self.calls.append(keep_seconds)
        answer = self._answers.pop(0) if self._answers else 0
        if isinstance(answer, Exception):
            raise answer
        return answer


async def _keep_house(rounds: _Rounds, *, calls: int) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(Housekeeper(rounds, keep_seconds=60, round_seconds=0.01).run(stop))
    async with asyncio.timeout(60):
        while len(rounds.calls) < calls:
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.wait_for(running, 60)


async def test_it_goes_on_until_nothing_old_is_left() -> None:
    rounds = _Rounds([500, 3])

    await _keep_house(rounds, calls=3)

    assert {60} == set(rounds.calls)


async def test_a_database_that_does_not_answer_only_puts_it_off() -> None:
    await _keep_house(_Rounds([TransientError("gone"), 1]), calls=3)
