"""What is shown of a job, to people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bridge.ledger.port import JobRecord

# Parts of a request that are shown to nobody.
_SECRETS = frozenset({"password"})
# Systems whose requests and results tell nothing of people.
SHOWN_WHOLE = frozenset({"wsi", "wsi-requests"})
# Of systems whose requests and results tell of people: what of them may be shown to those who have only asked. Of any other, nothing.
SHOWN_IN_PART: Mapping[str, frozenset[str]] = {
    system: frozenset(f"error reason skipped {names}".split())
    for system, names in {
        "cards": "documentId correlationId score decision outcome ticket reviewCodes engine models fallbackReason gpuProcessed "
        "processingTimeMs",
        "documents": "document_uri dpi pages text_mode formats media_type page_count pages_read failed_pages word_count mean_confidence "
        "models duration_seconds location text_uri artifacts file_errors",
        "labs": "top_k test_count statuses model catalogue location artifacts",
        "lab-jobs": "job_type priority document_id rows failed_rows",
        "consensus": "run_id run_type priority status decision overall_weighted_confidence usage",
    }.items()
}


def job_facts(record: JobRecord) -> dict[str, Any]:
    """What a job's row says, as JSON values, without its secrets: for those who may read the ledger."""
    return {**asdict(record), "state": record.state.value, "request": without_secrets(record.request)}


def impersonal_facts(record: JobRecord) -> dict[str, Any]:
    """What a job's row says, but for what tells of people: texts that were read, values, names.

    For those whom nobody has asked who they are.
    """
    facts = job_facts(record)
    if record.system in SHOWN_WHOLE:
        return facts
    shown = SHOWN_IN_PART.get(record.system, frozenset())
    parts = {part: {name: value for name, value in (facts[part] or {}).items() if name in shown} for part in ("request", "result")}
    return {**facts, "request": parts["request"], "result": None if record.result is None else parts["result"]}


def stage_of(record: JobRecord) -> str:
    """What is being done, and how far it is: tiles 16/32, 3 s left."""
    counted = f" {record.units_done}/{record.units_total}" if record.units_total else ""
    left = f", {record.seconds_left:.0f} s left" if record.seconds_left is not None else ""
    return f"{record.stage}{counted}{left}"


def without_secrets(request: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says that may be shown."""
    return {name: value for name, value in request.items() if name not in _SECRETS}
