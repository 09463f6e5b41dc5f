"""What the command line shows: tables, details, live progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from bridge.ledger.facts import stage_of
from bridge.ledger.port import JobRecord, Jobs, State

if TYPE_CHECKING:
    from bridge.dead.port import DeadMessage
    from bridge.escalations.cases import Escalation
    from bridge.records.lab_reviews import LabReview

_TERMINAL = frozenset({State.SUCCEEDED, State.FAILED})
_STYLES = {State.SUCCEEDED: "green", State.FAILED: "red", State.RUNNING: "cyan", State.WAITING: "yellow", State.QUEUED: "dim"}
# In these states the last error is that of an earlier try.
_PAST_ERRORS = frozenset({State.QUEUED, State.RUNNING})
_NAMES = {"attempts": "failed tries"}
_LOOK_SECONDS = 0.25
# After so long in the queue a hint is shown, in seconds.
_PATIENCE = 5.0
_UUID_START = 8
_LONGEST_KEY = 32
_SHOWN_CANDIDATES = 3


def settings_help(defaults: Mapping[str, Any]) -> str:
    """The settings by their variables, each with its default, for the end of a help text."""
    shown = {name: ",".join(map(str, value)) if isinstance(value, tuple) else str(value or "") for name, value in defaults.items()}
    return "Settings, as variables (default): " + " · ".join(f"{name} ({escape(value) or 'unset'})" for name, value in shown.items())


def jobs_table(records: Sequence[JobRecord]) -> Table:
    """One row a job, each named by the start of its key."""
    table = Table("job", "system", "state", "failed tries", "asked for", "took", "note", box=None, header_style="bold")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for record in records:
        table.add_row(
            _short(record.key),
            record.system,
            f"[{_STYLES[record.state]}]{record.state.value}[/]",
            str(record.attempts),
            _time(record.created_at),
            _took(record),
            escape(_cut(_note(record))),
        )
    return table


def reviews_table(reviews: Sequence[LabReview]) -> Table:
    """One row a name, with the codes that it may mean, best first; the decided one where there is one."""
    table = Table("id", "seen", "name", "unit", "specimen", "code", "likely", box=None, header_style="bold")
    for column in (*table.columns[:2], *table.columns[5:6]):
        column.no_wrap = True
    for each in reviews:
        found = [f"{one.code} {one.score:.2f} {one.name}" for one in each.candidates[:_SHOWN_CANDIDATES]]
        code = each.code or (each.candidates[0].code if each.candidates else "")
        table.add_row(each.id, str(each.seen), escape(each.name), escape(each.unit), escape(each.specimen), code, escape("\n".join(found)))
    return table


def job_details(facts: Mapping[str, Any]) -> Table:
    """One row a fact. An error that the job has got past is told as that."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    past = facts["state"] in _PAST_ERRORS
    for fact, value in facts.items():
        name = _NAMES.get(fact, fact) if fact != "last_error" or not past else "error of an earlier try"
        if value is None or value == "":
            continue
        if name.endswith("_at"):
            table.add_row(name, _time(value))
        else:
            table.add_row(name, escape(json.dumps(value, ensure_ascii=False, indent=2) if isinstance(value, dict | list) else str(value)))
    return table


def dead_table(messages: Sequence[DeadMessage]) -> Table:
    """One row a dead message."""
    table = Table("id", "died", "system", "job", "replayed", "reason", box=None, header_style="bold")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for message in messages:
        said = message.contents
        replayed = _time(message.replayed_at) if message.replayed_at else ""
        row = (message.id, _time(message.died_at), said.type or said.system, _short(said.job_key), replayed, _cut(message.reason))
        table.add_row(*map(escape, row))
    return table


def escalations_table(cases: Sequence[Escalation]) -> Table:
    """One row a case, without what it says of a person."""
    table = Table("state", "document", "failed tries", "since", "died", "reason", box=None, header_style="bold")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for case in cases:
        since, died = ("" if moment is None else _time(moment) for moment in (case.queued_at, case.died_at))
        table.add_row(case.state, escape(case.document), str(case.attempts), since, died, escape(_cut(case.reason)))
    return table


class Waiting:
    """Shows jobs until they have ended."""

    def __init__(self, jobs: Jobs, console: Console) -> None:
        self._jobs = jobs
        self._console = console

    async def run(self, labels: Mapping[str, str]) -> list[JobRecord]:
        """Wait for the jobs, keyed by their keys, under labels for people; returns what they ended with."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.fields[label]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[stage]}"),
            TimeElapsedColumn(),
        )
        ended: dict[str, JobRecord] = {}
        with Progress(*columns, console=self._console) as display:
            rows = {key: display.add_task("", total=1.0, label=escape(label), stage="queued") for key, label in labels.items()}
            while len(ended) < len(rows):
                for key in rows.keys() - ended.keys():
                    record = await self._jobs.find(key)
                    self._show(display, rows[key], record)
                    if record is not None and record.state in _TERMINAL:
                        ended[key] = record
                await asyncio.sleep(_LOOK_SECONDS if len(ended) < len(rows) else 0)
        return [ended[key] for key in labels]

    def _show(self, display: Progress, row: TaskID, record: JobRecord | None) -> None:
        if record is None:
            return
        if record.state in _TERMINAL:
            display.update(row, completed=1.0, stage=f"[{_STYLES[record.state]}]{record.state.value}[/]")
            display.stop_task(row)
            return
        stage = escape(stage_of(record) or record.state.value)
        if record.state is State.WAITING:
            stage = escape(f"waiting: {_cut(record.last_error)}")
        elif record.state is State.QUEUED and (display.tasks[row].elapsed or 0) > _PATIENCE:
            stage = "queued (is `bridge run` running here?)"
        display.update(row, completed=record.progress, stage=stage)


def _note(record: JobRecord) -> str:
    """How far a running job is, or what the last error was; one that the job has got past is told as that."""
    earlier = f"earlier: {record.last_error}" if record.last_error and record.state in _PAST_ERRORS else ""
    if record.state is State.RUNNING:
        return ", ".join(part for part in (f"{record.progress:.0%} {stage_of(record)}".strip(), earlier) if part)
    return earlier or record.last_error


def _took(record: JobRecord) -> str:
    if record.started_at is None or record.finished_at is None:
        return ""
    return f"{record.finished_at - record.started_at:.1f} s"


def _time(seconds: float) -> str:
    """The time of the day, and the day too when it is not today."""
    moment = datetime.fromtimestamp(seconds, tz=UTC).astimezone()
    today = moment.date() == datetime.now(tz=UTC).astimezone().date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def _short(key: str) -> str:
    """Enough of a key to name its job by."""
    try:
        return str(UUID(key))[:_UUID_START]
    except ValueError:
        return key if len(key) <= _LONGEST_KEY else f"{key[: _LONGEST_KEY - 1]}…"


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"
