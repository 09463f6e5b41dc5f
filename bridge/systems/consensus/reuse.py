"""What a revision takes over from its parent, and in what it differs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bridge.records.consensus import RunRecord
from bridge.systems.consensus.personas import GUARDIAN
from bridge.systems.consensus.schemas import PersonaReview

# A reviewer who was less confident is asked again.
_CONFIDENT = 0.70


def reusable_reviews(parent: RunRecord) -> Mapping[str, PersonaReview]:
    """Reviews of the parent that hold for the revision too, by persona."""
    told = {"reused": True, "timestamp": datetime.now(tz=UTC).isoformat()}
    found = {}
    for row in parent.reviews:
        review = PersonaReview.model_validate(row["review"])
        doubtful = review.confidence_score < _CONFIDENT or review.blocking_issues
        if doubtful or (row["persona_id"] == GUARDIAN and row["security_concerns_present"]):
            continue
        found[row["persona_id"]] = review.model_copy(update={"internal_metadata": told})
    return found


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a proposal that have changed, each with its old and its new value."""
    names = [*old, *(name for name in new if name not in old)]
    return {name: {"old": old.get(name), "new": new.get(name)} for name in names if old.get(name) != new.get(name)}
