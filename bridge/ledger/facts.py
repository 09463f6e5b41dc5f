"""What is shown of a job, to people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bridge.ledger.port import JobRecord

# Parts of a request that are shown to nobody.
_SECRETS = frozenset({"password"})


def job_facts(record: JobRecord) -> dict[str, Any]:
    """What a job's row says, as JSON values, without its secrets."""
    return {**asdict(record), "state": record.state.value, "request": without_secrets(record.request)}


def stage_of(record: JobRecord) -> str:
    """What is being done, and how far it is: tiles 16/32, 3 s left."""
    counted = f" {record.units_done}/{record.units_total}" if record.units_total else ""
    left = f", {record.seconds_left:.0f} s left" if record.seconds_left is not None else ""
    return f"{record.stage}{counted}{left}"


def without_secrets(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says that may be shown."""
    return {name: value for name, value in request.items() if name not in _SECRETS}
