"""Gathers single calls into the batches that SQS takes, and answers each entry for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.aws.access import Aws
from bridge.aws.faults import meant
from bridge.errors import TransientError

_MOST_ENTRIES = 10
# The whole batch, bodies and attributes together; what SQS took from everyone before 2025.
_MOST_BYTES = 256_000
# How long an entry waits for company, in seconds.
_LINGER_SECONDS = 0.004
_TRIES = 4
_PAUSE_SECONDS = 0.1


class Batches:
    """One batch operation on one queue. An entry that fails is tried again by itself; the others are not."""

    def __init__(self, aws: Aws, operation: str, queue_url: str) -> None:
        """`operation`: such as delete_message_batch."""
        self._aws = aws
        self._operation = operation
        self._url = queue_url
        self._waiting: list[tuple[Mapping[str, Any], int, asyncio.Future[Mapping[str, Any]]]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, entry: Mapping[str, Any], *, size: int = 0) -> Mapping[str, Any]:
        """Do one entry (without its Id), of `size` bytes; returns what SQS says of it. Raises as `Aws.call` does."""
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._once(entry, size)
            except TransientError:
                if attempt == _TRIES:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
        raise AssertionError  # the last try returns or raises

    async def _once(self, entry: Mapping[str, Any], size: int) -> Mapping[str, Any]:
        if self._waiting and sum(waiting for _, waiting, _ in self._waiting) + size > _MOST_BYTES:
            self._flush()
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry, size, answer))
        if len(self._waiting) >= _MOST_ENTRIES:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._flush)
        return await answer

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            batch, self._waiting = self._waiting, []
            entries, answers = [entry for entry, _, _ in batch], [answer for _, _, answer in batch]
            task = asyncio.get_running_loop().create_task(self._send(entries, answers))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, entries: Sequence[Mapping[str, Any]], answers: Sequence[asyncio.Future[Mapping[str, Any]]]) -> None:
        try:
            numbered = [{**entry, "Id": str(number)} for number, entry in enumerate(entries)]
            told = await self._aws.call("sqs", self._operation, QueueUrl=self._url, Entries=numbered)
        except BaseException as error:
            for answer in answers:
                if not answer.done():
                    answer.set_exception(error if isinstance(error, Exception) else TransientError("the bridge ends"))
            if isinstance(error, Exception):
                return
            raise
        outcomes = {one["Id"]: one for one in [*told.get("Successful", ()), *told.get("Failed", ())]}
        for number, answer in enumerate(answers):
            self._answer(answer, outcomes.get(str(number)))

    def _answer(self, answer: asyncio.Future[Mapping[str, Any]], outcome: Mapping[str, Any] | None) -> None:
        if answer.done():  # whoever asked is gone
            return
        if outcome is None:
            answer.set_exception(TransientError(f"sqs {self._operation} {self._url}: an entry was left unanswered"))
        elif "Code" in outcome:
            text = f"sqs {self._operation} {self._url}: {outcome.get('Message', '')}"
            answer.set_exception(meant(outcome["Code"], text, at_fault=not outcome.get("SenderFault", False)))
        else:
            answer.set_result(outcome)
