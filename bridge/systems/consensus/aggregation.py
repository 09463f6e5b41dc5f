"""What five reviews come to. The rules are the platform's; nothing is asked of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bridge.errors import PermanentError
from bridge.systems.consensus.personas import GUARDIAN, Persona
from bridge.systems.consensus.schemas import DecisionAggregation, MinorityReport, PersonaReview, ScoreBreakdown

APPROVE, REVISE = 0.80, 0.60
Decision = Literal["approve", "revise", "reject"]
# Below it a reviewer is heard against an approval.
_LOW = 0.60
_NO_RECOMMENDATION = "Address the concerns of this reviewer before going ahead."


def aggregate(reviews: Sequence[PersonaReview], personas: Sequence[Persona]) -> DecisionAggregation:
    """Weigh the reviews. Raises `PermanentError` when there is none, or one is nobody's."""
    if not reviews:
        raise PermanentError("there are no reviews to decide on")
    weights = {persona.id: persona.weight for persona in personas}
    if strangers := [review.persona_id for review in reviews if review.persona_id not in weights]:
        raise PermanentError(f"reviews of unknown personas: {', '.join(strangers)}; expected {', '.join(weights)}")
    scores = {review.persona_id: review.confidence_score for review in reviews}
    parts = {persona: weights[persona] * score for persona, score in scores.items()}
    confidence = min(1.0, max(0.0, sum(parts.values())))
    decision = _decision(confidence, reviews)
    formula = " + ".join(f"{weights[persona]:g} × {score:g}" for persona, score in scores.items())
    return DecisionAggregation(
        overall_weighted_confidence=confidence,
        weighted_confidence=confidence,
        decision=decision,
        detailed_score_breakdown=ScoreBreakdown(
            weights={persona: weights[persona] for persona in scores},
            individual_scores=scores,
            weighted_contributions=parts,
            formula=f"{formula} = {confidence:.4f}",
        ),
        minority_reports=[_report(review) for review in reviews if _dissents(review, decision)] or None,
    )


def _decision(confidence: float, reviews: Sequence[PersonaReview]) -> Decision:
    # Sums of decimal weights miss a bound by a rounding error.
    measured = round(confidence, 9)
    if measured < REVISE:
        return "reject"
    vetoed = any(review.persona_id == GUARDIAN and review.has_security_concerns for review in reviews)
    return "approve" if measured >= APPROVE and not vetoed else "revise"


def _dissents(review: PersonaReview, decision: str) -> bool:
    blocks = bool(review.blocking_issues)
    return decision != "reject" and (blocks or (decision == "approve" and review.confidence_score < _LOW))


def _report(review: PersonaReview) -> MinorityReport:
    low = f"{review.persona_name} is not confident that the proposal should go ahead ({review.confidence_score:.2f})."
    return MinorityReport(
        persona_id=review.persona_id,
        persona_name=review.persona_name,
        confidence_score=review.confidence_score,
        blocking_summary="; ".join(issue.text for issue in review.blocking_issues) or low,
        mitigation_recommendation="; ".join(review.recommendations) or _NO_RECOMMENDATION,
        strengths=list(review.strengths) or None,
        concerns=[concern.text for concern in review.concerns] or None,
    )
