"""How complete a card is, by the platform's rules, and what follows from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# From here on a card is approved.
ENOUGH = 75
_MOST = 100
_COMPLETE = 60
_NPWP = re.compile(r"\d{2}\.\d{3}\.\d{3}\.\d-\d{3}\.\d{3}")


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a card comes to."""

    # 0 to 100.
    points: int
    # auto_approve, needs_review.
    decision: str
    # auto_approved, pending_manual_review.
    outcome: str


def score_of(kind: str, fields: Mapping[str, str]) -> Score:
    """Score the fields that were found; none found is no points."""
    points = _COMPLETE if fields else 0
    if kind.upper() == "KTP":
        points += 20 if re.fullmatch(r"\d{16}", fields.get("nik", "")) else 0
        points += 10 if len(fields.get("name", "")) > 3 else 0
    else:
        points += 30 if _NPWP.fullmatch(fields.get("npwpNumber", "")) or re.fullmatch(r"\d{16}", fields.get("npwpNumber", "")) else 0
    points = min(_MOST, points)
    return _decided(points, approved=points >= ENOUGH)


def for_review(score: Score) -> Score:
    """The same points, but for a person to decide."""
    return _decided(score.points, approved=False)


def _decided(points: int, *, approved: bool) -> Score:
    return Score(
        points=points,
        decision="auto_approve" if approved else "needs_review",
        outcome="auto_approved" if approved else "pending_manual_review",
    )
