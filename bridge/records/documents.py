"""The card platform's rows: documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from bridge.database.port import Database
from bridge.database.text import json_text, storable
from bridge.errors import ConfigurationError
from bridge.job import Write
from bridge.moments import moment_text

_SQL = Path(__file__).parent / "sql"
# What the platform writes when a person has had the last word; the statements have the same.
_BY_PEOPLE = frozenset({"manually_approved", "manually_rejected", "escalation_cancelled"})


@dataclass(frozen=True, kw_only=True)
class DocumentRecord:
    """A document as its worker needs it."""

    id: str
    user_id: str
    # KTP or NPWP.
    type: str
    # The key of its object, or a URL that ends in it.
    file_url: str | None
    status: str | None
    verification_status: str | None
    buli2_ticket_id: str | None

    @property
    def is_completed(self) -> bool:
        """Whether its worker, or another program, has ended it well."""
        return self.status == "completed"

    @property
    def is_in_work(self) -> bool:
        """Whether it says that it waits for a worker, or that one has it."""
        return self.status == "processing"

    @property
    def is_decided(self) -> bool:
        """Whether a person has had the last word on it."""
        return self.verification_status in _BY_PEOPLE


class DocumentRecords:
    """Reads the platform's table, and says how it is to be changed.

    No write touches what a person has decided, or another program has ended.
    """

    def __init__(self, database: Database) -> None:
        """Raises `ConfigurationError` for a database that cannot hold the platform's tables."""
        if database.dialect != "postgres":
            raise ConfigurationError(
                f"BRIDGE_DATABASE: the card platform's documents lie in PostgreSQL; {database.name} is an embedded file; set DATABASE_URL"
            )
        self._database = database
        self._sql = database.statements(_SQL, "documents")

    async def check(self) -> None:
        """Raise `ConfigurationError` when the table is missing."""
        if (await self._database.look(self._sql["tables"])).rows:
            raise ConfigurationError(f"{self._database.name} lacks the table documents; `bridge migrate --with documents` creates it")

    async def find(self, document_id: str) -> DocumentRecord | None:
        """The document; None when there is none."""
        row = (await self._database.look(self._sql["find"], {"id": document_id})).first
        return None if row is None else DocumentRecord(**row)

    async def in_work(self) -> Sequence[str]:
        """The documents that say that they wait for a worker, or that one has them; the oldest first."""
        return [row["id"] for row in (await self._database.look(self._sql["in_work"])).rows]

    async def is_with_people(self, document_id: str, review: str = "") -> bool:
        """Whether a person has had the last word on a document, or its case has a ticket; not of one that is not in the table.

        `review`: of the platform's own reviews the one that the case is of. It has a task of its own, whatever ticket the document has.
        """
        known = _id_of(document_id)
        record = await self.find(known) if known else None
        if record is None or record.is_decided:
            return record is not None
        if not review:
            return bool(record.buli2_ticket_id)
        asked = _id_of(review) if await self._knows_reviews() else None
        return bool(asked and (await self._database.look(self._sql["review"], {"review": asked})).rows)

    async def keep_ticket(self, document_id: str, ticket: str, review: str = "") -> None:
        """Keep the ticket of a case that was handed over later, with its review where it is of one; nothing for what is in no table."""
        if review and (asked := _id_of(review)) and await self._knows_reviews():
            await self._database.change(self._sql["task"], {"review": asked, "ticket": ticket})
        if known := _id_of(document_id):
            await self._database.change(self._sql["ticket"], {"id": known, "ticket": ticket, "of_review": bool(review)})

    async def _knows_reviews(self) -> bool:
        return bool((await self._database.look(self._sql["reviews"])).rows)

    def processing(self, document_id: str) -> Write:
        """A worker has begun."""
        return self._write("processing", id=document_id)

    def read(self, document_id: str, text: str) -> Write:
        """What was read."""
        return self._write("read", id=document_id, text=text)

    def evaluated(self, document_id: str, *, score: int, decision: str, fields: Mapping[str, Any]) -> Write:
        """What it comes to."""
        return self._write("evaluated", id=document_id, score=score, decision=decision, fields=json_text(fields))

    def completed(self, document_id: str, *, outcome: str, ticket: str | None) -> Write:
        """The end of a document that was read."""
        return self._write("completed", id=document_id, outcome=outcome, ticket=ticket)

    def failed(self, document_id: str, *, error: str) -> Write:
        """The end of a document that is given up."""
        return self._write("failed", id=document_id, error=error, moment=moment_text())

    def _write(self, statement: str, **values: Any) -> Write:
        return Write(statement=self._sql[statement].text, values=storable(values))


def _id_of(text: str) -> str | None:
    """As PostgreSQL reads it: Python takes more for one, such as `urn:uuid:…`."""
    try:
        return str(UUID(text))
    except ValueError:
        return None
