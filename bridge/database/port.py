"""What every database of the bridge does, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from sqlalchemy import RowMapping, TextClause

# SQL and its values.
Statement = tuple[TextClause, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a statement gave."""

    # Those that it returned.
    rows: Sequence[RowMapping] = ()
    # How many it found or changed.
    count: int = 0
    # What the last of those that followed it in its transaction gave; PostgreSQL alone tells.
    last: Sequence[RowMapping] = ()
    # Whether it may have been done twice, since the first answer was lost.
    retried: bool = False

    @property
    def first(self) -> RowMapping | None:
        """The first row; None when there is none."""
        return self.rows[0] if self.rows else None


@dataclass(frozen=True, kw_only=True)
class Pool:
    """How many connections are kept."""

    # Open ones, and those that may come on top.
    size: int = 8
    overflow: int = 8
    # How long one is waited for, in seconds.
    seconds: float = 30.0
    # After so long one is renewed: behind balancers and NAT it may be dead without anyone having said so.
    recycle_seconds: float = 1800.0


class Database(Protocol):
    """Keeps what it has confirmed. Any number of processes may share it."""

    @property
    def name(self) -> str:
        """For people; without secrets."""

    @property
    def dialect(self) -> Literal["sqlite", "postgres"]:
        """Whose SQL it understands."""

    def statements(self, folder: Path, name: str, **words: str) -> Mapping[str, TextClause]:
        """The statements of `folder`/`dialect`/`name`.sql, made for this database. `words`: each stands where a file says `{word}`."""

    async def look(self, statement: TextClause, values: Mapping[str, Any] | None = None) -> Rows:
        """Run one statement that changes nothing. Raises `TransientError`."""

    async def change(self, statement: TextClause, values: Mapping[str, Any] | None = None, *, then: Sequence[Statement] = ()) -> Rows:
        """Run one statement; what it changed is on the disk when this returns. Raises `TransientError`.

        `then`: run in the same transaction, if the first found or changed a row; the answer is the first one's. Raises
        `PermanentError` when it is refused: nothing was done then.
        """

    async def close(self) -> None:
        """Close every connection."""
