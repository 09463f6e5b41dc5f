"""The ledger's own dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator

from bridge.dead.port import Contents, DeadMessage, contents_of
from bridge.errors import PermanentError
from bridge.ledger.port import DeadLetter
from bridge.store import Store
from bridge.transports.sending import replay_place

_ALL = 1_000_000


class KeptLetters:
    """Dead letters of the ledger, the newest first. One that was sent again stays there, and says when."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def browse(self) -> AsyncIterator[DeadMessage]:
        """Each of them once. Raises `TransientError`."""
        for letter in await self._store.dead_letters.list(limit=_ALL):
            yield _message(letter, destination=replay_place(self._store.settings, letter))

    async def replay(self, message: DeadMessage, *, to: str = "") -> str:
        """Send one again, and note that; returns where it went. Raises `PermanentError`, `TransientError`."""
        if to:
            raise PermanentError("--to is for real queues; a dead letter of the ledger goes back to where it came from")
        return replay_place(self._store.settings, await self._store.replay(int(message.id)))


def _message(letter: DeadLetter, *, destination: str) -> DeadMessage:
    said = contents_of(letter.body, letter.attributes)
    return DeadMessage(
        id=str(letter.id),
        source=letter.source,
        queue=letter.queue,
        destination=destination,
        message_id=letter.message_id,
        contents=Contents(job_key=letter.job_key or said.job_key, system=said.system, type=said.type),
        reason=letter.reason,
        died_at=letter.dead_at,
        replayed_at=letter.replayed_at,
        body=letter.body,
        attributes=letter.attributes,
    )
