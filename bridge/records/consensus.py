"""The consensus platform's rows: runs, proposals, reviews, decisions, steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from bridge.database.port import Database
from bridge.database.text import json_text, storable
from bridge.errors import ConfigurationError
from bridge.job import Write

_SQL = Path(__file__).parent / "sql"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run and all that hangs on it. Statuses, types and priorities are in lower case."""

    id: str
    created_at: datetime
    updated_at: datetime
    status: str
    queued_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    retry_count: int
    run_type: str
    priority: str
    parent_run_id: str | None
    input_idea: str
    # This and `parameters_json` are whatever JSON the column holds: objects, as the platform writes them.
    extra_context: Any
    model: str
    temperature: float
    parameters_json: Any
    overall_weighted_confidence: float | None
    decision_label: str | None
    schema_version: str | None
    prompt_set_version: str | None
    proposal: Mapping[str, Any] | None
    edit_notes: str | None
    decision: Mapping[str, Any] | None
    # Each with its `review`, in the order in which they were written.
    reviews: Sequence[Mapping[str, Any]]
    # Those that have a row, in their order.
    steps: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class NewRun:
    """A run that somebody asks for."""

    run_id: UUID
    input_idea: str
    extra_context: Mapping[str, Any] | None
    run_type: str
    priority: str
    parent_run_id: UUID | None
    model: str
    temperature: float
    parameters: Mapping[str, Any]
    # Of prompts and schemas.
    version: str
    # Names in their order.
    steps: Sequence[str]


class ConsensusRecords:
    """Reads the platform's tables, and says how they are to be changed."""

    def __init__(self, database: Database) -> None:
        """Raises `ConfigurationError` for a database that cannot hold the platform's tables."""
        if database.dialect != "postgres":
            raise ConfigurationError(
                f"BRIDGE_DATABASE: the consensus pipeline's tables lie in PostgreSQL, and {database.name} is an embedded file; "
                "set DB_HOST and its like, or BRIDGE_DATABASE, to the platform's database"
            )
        self._database = database
        self._sql = database.statements(_SQL, "consensus")

    async def check(self) -> None:
        """Raise `ConfigurationError` when tables are missing."""
        rows = (await self._database.look(self._sql["tables"])).rows
        if rows:
            missing = ", ".join(row["name"] for row in rows)
            raise ConfigurationError(f"{self._database.name} lacks the tables {missing}; `bridge migrate --with consensus` creates them")

    async def find(self, run_id: str) -> RunRecord | None:
        """The run; None when there is none."""
        row = (await self._database.look(self._sql["find"], {"run_id": run_id})).first
        return None if row is None else RunRecord(**{name: _decoded(name, value) for name, value in row.items()})

    async def is_queued(self, run_id: str) -> bool:
        """Whether a run is to be worked on, and nobody has begun."""
        return bool((await self._database.look(self._sql["queued"], {"run_id": run_id})).rows)

    async def create(self, run: NewRun) -> None:
        """Write a queued run with its pending steps; the same run twice is one."""
        steps = [{"name": name, "place": place} for place, name in enumerate(run.steps)]
        await self._database.change(
            self._sql["create"],
            {
                "run_id": str(run.run_id),
                "input_idea": run.input_idea,
                "extra_context": _json(run.extra_context),
                "run_type": run.run_type,
                "priority": run.priority,
                "parent_run_id": str(run.parent_run_id) if run.parent_run_id else None,
                "model": run.model,
                "temperature": run.temperature,
                "parameters": _json(run.parameters),
                "version": run.version,
                "steps": _json(steps),
            },
        )

    async def requeue(self, run_id: str) -> bool:
        """Make a failed or queued run ready to be asked for again; false when it is neither. A running one is as it may be asked for."""
        return (await self._database.change(self._sql["requeue"], {"run_id": run_id})).first is not None

    def started(self, run_id: str) -> Write:
        """A worker has begun."""
        return self._write("started", run_id=run_id)

    def step(
        self, run_id: str, *, name: str, place: int, status: str, error: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Write:
        """Where a step stands: RUNNING, COMPLETED, FAILED."""
        return self._write("step", run_id=run_id, name=name, place=place, status=status, error=error, metadata=_json(metadata))

    def proposal(
        self, run_id: str, *, proposal: Mapping[str, Any], diff: Mapping[str, Any] | None, version: str, edit_notes: str | None
    ) -> Write:
        """The expanded proposal."""
        return self._write("proposal", run_id=run_id, proposal=_json(proposal), diff=_json(diff), version=version, edit_notes=edit_notes)

    def review(self, run_id: str, *, review: Mapping[str, Any], security: bool, parameters: Mapping[str, Any]) -> Write:
        """One persona's review."""
        return self._write(
            "review",
            run_id=run_id,
            persona_id=review["persona_id"],
            persona_name=review["persona_name"],
            review=_json(review),
            confidence=review["confidence_score"],
            blocking=bool(review["blocking_issues"]),
            security=security,
            parameters=_json(parameters),
        )

    def ended(self, run_id: str, *, decision: Mapping[str, Any]) -> tuple[Write, ...]:
        """The decision, and the run's good end."""
        confidence = decision["overall_weighted_confidence"]
        return (
            self._write("decision", run_id=run_id, decision=_json(decision), confidence=confidence),
            self._write("completed", run_id=run_id, confidence=confidence, decision=decision["decision"]),
        )

    def failed(self, run_id: str, *, reason: str, beginnings: Mapping[str, str]) -> Write:
        """The run is given up. `beginnings`: what the error of each step that was worked on begins with."""
        return self._write("failed", run_id=run_id, reason=reason, beginnings=_json(beginnings))

    def _write(self, statement: str, **values: Any) -> Write:
        return Write(statement=self._sql[statement].text, values=storable(values))


def _json(value: Any) -> str | None:
    return None if value is None else json_text(value)


def _decoded(name: str, value: Any) -> Any:
    # Some drivers give JSON as text.
    names = {"extra_context", "parameters_json", "proposal", "decision", "reviews", "steps"}
    return json.loads(value) if name in names and isinstance(value, str) else value
