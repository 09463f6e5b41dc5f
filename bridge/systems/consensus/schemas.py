"""The shapes of the pipeline's JSON, as the platform stores and reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ExpandedProposal(_Shape):
    """An idea, made into something that can be reviewed."""

    problem_statement: Text
    proposed_solution: Text
    assumptions: list[Text]
    scope_non_goals: list[Text]
    title: str | None = None
    summary: str | None = None
    raw_idea: str | None = None
    raw_expanded_proposal: str | None = None
    metadata: dict[str, Any] | None = None


class Concern(_Shape):
    """Something that worries a reviewer."""

    text: Text
    is_blocking: bool


class BlockingIssue(_Shape):
    """Something that must be solved first."""

    text: Text
    security_critical: bool | None = None


class PersonaReview(_Shape):
    """What one reviewer says."""

    persona_name: Text
    persona_id: Text
    confidence_score: Share
    strengths: list[Text]
    concerns: list[Concern]
    recommendations: list[Text]
    blocking_issues: list[BlockingIssue]
    estimated_effort: Text | dict[str, Any]
    dependency_risks: list[Text | dict[str, Any]]
    internal_metadata: dict[str, Any] | None = None

    @property
    def has_security_concerns(self) -> bool:
        """Whether an issue is marked as critical for security."""
        return any(issue.security_critical for issue in self.blocking_issues)


class ScoreBreakdown(_Shape):
    """How the confidence came about, by persona."""

    weights: dict[str, float]
    individual_scores: dict[str, float]
    weighted_contributions: dict[str, float]
    formula: str


class MinorityReport(_Shape):
    """What a reviewer holds against the decision."""

    persona_id: Text
    persona_name: Text
    confidence_score: Share
    blocking_summary: Text
    mitigation_recommendation: Text
    strengths: list[str] | None = None
    concerns: list[str] | None = None


class DecisionAggregation(_Shape):
    """What the reviews come to."""

    overall_weighted_confidence: Share
    weighted_confidence: Share
    decision: Literal["approve", "revise", "reject"]
    # Kept empty for readers of an older form.
    score_breakdown: None = None
    detailed_score_breakdown: ScoreBreakdown
    minority_report: None = None
    minority_reports: list[MinorityReport] | None = None
