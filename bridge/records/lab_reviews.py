"""Names of lab tests that no code was believed for: kept until a person has said what they mean."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.database.text import json_text
from bridge.errors import PermanentError
from bridge.inference.labs import Alias, LabClassification, LabTest, MatchStatus
from bridge.job import Write

if TYPE_CHECKING:
    # The command line names the states without a database.
    from bridge.database.port import Database

_SQL = Path(__file__).parent / "sql"
_ID_DIGITS = 10
# Decisions of one look.
_PORTION = 1000


class ReviewState(StrEnum):
    """Whether a name was decided."""

    OPEN = "open"
    # The first candidate was right; it was another code.
    ACCEPTED = "accepted"
    CORRECTED = "corrected"


@dataclass(frozen=True, kw_only=True)
class ReviewCandidate:
    """A code that was found for a name."""

    code: str
    name: str
    # 0 to 1.
    score: float
    reasons: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class LabReview:
    """A printed name, with the unit and specimen that it was printed with."""

    id: str
    name: str
    unit: str
    specimen: str
    state: ReviewState
    # How often it was printed while it was open.
    seen: int
    # Best first.
    candidates: Sequence[ReviewCandidate]
    # As name:version.
    catalogue: str
    # Once it is decided: what it means, and who said so.
    code: str
    decided_by: str

    def alias(self, code: str) -> Alias:
        """What a server is told when this name means `code`."""
        return Alias(name=self.name, code=code, unit=self.unit, specimen=self.specimen)


class LabReviews:
    """The names, in the ledger's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sql = database.statements(_SQL, "lab_reviews")

    def noted(self, tests: Sequence[LabTest], answers: Sequence[LabClassification], *, catalogue: str) -> tuple[Write, ...]:
        """What keeps those names whose code is not believed. `answers`: what was found, in the order of the tests."""
        rows = _rows(tests, answers, catalogue)
        return (Write(statement=self._sql["note"].text, values={"rows": json_text(rows)}),) if rows else ()

    async def note(self, tests: Sequence[LabTest], answers: Sequence[LabClassification], *, catalogue: str) -> None:
        """Keep them now. Raises `TransientError`."""
        if rows := _rows(tests, answers, catalogue):
            await self._database.change(self._sql["note"], {"rows": json_text(rows)})

    async def waiting(self, state: ReviewState, *, limit: int) -> Sequence[LabReview]:
        """The names in one state, the most often printed first. Raises `TransientError`."""
        found = await self._database.look(self._sql["waiting"], {"state": str(state), "limit": limit})
        return [_review(dict(row)) for row in found.rows]

    async def find(self, start: str) -> LabReview:
        """The name whose id starts so. Raises `PermanentError` unless there is exactly one, `TransientError`."""
        rows = (await self._database.look(self._sql["find"], {"id": start.lower()})).rows
        if len(rows) != 1 or not start:
            raise PermanentError(
                f"no name to review, or more than one, has an id that starts with {start!r}; `bridge labs review list` lists them"
            )
        return _review(dict(rows[0]))

    async def decide(self, review: LabReview, *, state: ReviewState, code: str, by: str) -> None:
        """Keep what a person said. Raises `TransientError`."""
        await self._database.change(self._sql["decide"], {"id": review.id, "state": str(state), "code": code, "by": by})

    async def decided(self) -> Sequence[Alias]:
        """Every name that was decided. Raises `TransientError`."""
        aliases: list[Alias] = []
        after = ""
        while rows := (await self._database.look(self._sql["decided"], {"after": after, "limit": _PORTION})).rows:
            aliases += [Alias(**{field: row[field] for field in ("name", "code", "unit", "specimen")}) for row in rows]
            after = rows[-1]["id"]
        return aliases


def _rows(tests: Sequence[LabTest], answers: Sequence[LabClassification], catalogue: str) -> list[dict[str, Any]]:
    """One row a name that waits, in one order, lest two workers wait for each other."""
    seen: Counter[str] = Counter()
    rows: dict[str, dict[str, Any]] = {}
    for test, answer in zip(tests, answers, strict=True):
        if answer.status is MatchStatus.MATCHED:
            continue
        key = _id(test)
        seen[key] += 1
        rows[key] = {
            "id": key,
            "name": test.name,
            "unit": test.unit,
            "specimen": test.specimen,
            "candidates": json.dumps([asdict(_candidate(each)) for each in answer.candidates], ensure_ascii=False),
            "catalogue": catalogue,
        }
    return [{**rows[key], "seen": seen[key]} for key in sorted(rows)]


def _id(test: LabTest) -> str:
    """The same for what is printed alike but for case and spaces."""
    said = "\n".join(" ".join(text.lower().split()) for text in (test.name, test.unit, test.specimen))
    return hashlib.sha256(said.encode()).hexdigest()[:_ID_DIGITS]


def _candidate(found: Any) -> ReviewCandidate:
    return ReviewCandidate(code=found.code, name=found.long_common_name, score=round(found.score, 4), reasons=list(found.reasons))


def _review(row: Mapping[str, Any]) -> LabReview:
    candidates = [ReviewCandidate(**each) for each in json.loads(row["candidates"])]
    return LabReview(**{**row, "state": ReviewState(row["state"]), "candidates": candidates})
