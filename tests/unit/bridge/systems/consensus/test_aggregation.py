"""What reviews come to, beside figures worked out by hand."""

from __future__ import annotations

import pytest

from bridge.errors import PermanentError
from bridge.systems.consensus.aggregation import aggregate
from bridge.systems.consensus.personas import load_prompts
from bridge.systems.consensus.schemas import BlockingIssue, Concern, PersonaReview

PERSONAS = load_prompts("1.0.0").personas
NAMES = {persona.id: persona.name for persona in PERSONAS}
ALL = ("architect", "critic", "optimist", "security_guardian", "user_advocate")


def review(persona: str, score: float, *, issues: tuple[BlockingIssue, ...] = (), recommendations: tuple[str, ...] = ()) -> PersonaReview:
    return PersonaReview(
        persona_name=NAMES.get(persona, persona),
        persona_id=persona,
        confidence_score=score,
        strengths=["Clear"],
        concerns=[Concern(text="Costs", is_blocking=False)],
        recommendations=list(recommendations),
        blocking_issues=list(issues),
        estimated_effort="A week",
        dependency_risks=[],
    )


def reviews(*scores: float) -> list[PersonaReview]:
    return [review(persona, score) for persona, score in zip(ALL, scores, strict=True)]


# 0.25, 0.25, 0.15, 0.20 and 0.15 of the scores.
@pytest.mark.parametrize(
    ("scores", "confidence", "decision"),
    [
        ((0.9, 0.8, 1.0, 0.7, 0.6), 0.225 + 0.2 + 0.15 + 0.14 + 0.09, "approve"),
        ((0.8, 0.8, 0.8, 0.8, 0.8), 0.8, "approve"),
        ((0.8, 0.8, 0.8, 0.8, 0.79), 0.7985, "revise"),
        ((0.6, 0.6, 0.6, 0.6, 0.6), 0.6, "revise"),
        ((0.6, 0.6, 0.6, 0.6, 0.59), 0.5985, "reject"),
        ((0.0, 0.0, 0.0, 0.0, 0.0), 0.0, "reject"),
        ((1.0, 1.0, 1.0, 1.0, 1.0), 1.0, "approve"),
    ],
)
def test_confidence_is_the_weighted_sum_and_decides_by_its_bounds(scores: tuple[float, ...], confidence: float, decision: str) -> None:
    found = aggregate(reviews(*scores), PERSONAS)

    assert found.overall_weighted_confidence == pytest.approx(confidence)
    assert found.weighted_confidence == found.overall_weighted_confidence
    assert found.decision == decision
    assert found.score_breakdown is None
    assert found.minority_report is None


def test_the_weights_of_missing_reviews_are_not_shared_out() -> None:
    found = aggregate(reviews(1, 1, 1, 1, 1)[:4], PERSONAS)

    assert found.overall_weighted_confidence == pytest.approx(0.85)


def test_the_breakdown_tells_how_the_figure_came_about() -> None:
    breakdown = aggregate(reviews(0.9, 0.8, 1.0, 0.7, 0.6), PERSONAS).detailed_score_breakdown

    assert breakdown.weights == {"architect": 0.25, "critic": 0.25, "optimist": 0.15, "security_guardian": 0.2, "user_advocate": 0.15}
    assert breakdown.individual_scores["security_guardian"] == 0.7
    assert breakdown.weighted_contributions["security_guardian"] == pytest.approx(0.14)
    assert breakdown.formula.endswith("= 0.8050")


def test_the_security_guardian_turns_an_approval_into_a_revision_and_nothing_else() -> None:
    veto = (BlockingIssue(text="Keys in the open", security_critical=True),)
    high, low = reviews(0.9, 0.9, 0.9, 0.9, 0.9), reviews(0.1, 0.1, 0.1, 0.1, 0.1)
    high[3], low[3] = review("security_guardian", 0.9, issues=veto), review("security_guardian", 0.1, issues=veto)

    assert aggregate(high, PERSONAS).decision == "revise"
    assert aggregate(high, PERSONAS).overall_weighted_confidence == pytest.approx(0.9)
    assert aggregate(low, PERSONAS).decision == "reject"


def test_nobody_else_has_a_veto_and_no_other_issue_is_one() -> None:
    other = reviews(0.9, 0.9, 0.9, 0.9, 0.9)
    other[0] = review("architect", 0.9, issues=(BlockingIssue(text="Unsafe", security_critical=True),))
    other[3] = review("security_guardian", 0.9, issues=(BlockingIssue(text="Slow", security_critical=None),))

    assert aggregate(other, PERSONAS).decision == "approve"


def test_an_approval_reports_who_is_against_it_or_not_confident() -> None:
    found = reviews(0.95, 0.95, 0.95, 0.95, 0.55)
    found[1] = review(
        "critic", 0.95, issues=(BlockingIssue(text="No plan"), BlockingIssue(text="No money")), recommendations=("Plan", "Save")
    )

    reports = aggregate(found, PERSONAS).minority_reports

    assert reports is not None
    assert [report.persona_id for report in reports] == ["critic", "user_advocate"]
    assert (reports[0].blocking_summary, reports[0].mitigation_recommendation) == ("No plan; No money", "Plan; Save")
    assert "0.55" in reports[1].blocking_summary
    assert reports[1].mitigation_recommendation
    assert (reports[0].strengths, reports[0].concerns) == (["Clear"], ["Costs"])


def test_a_revision_reports_blocking_issues_only_and_a_rejection_nothing() -> None:
    blocked = (BlockingIssue(text="No plan"),)
    revised, rejected = reviews(0.9, 0.7, 0.7, 0.7, 0.1), reviews(0.1, 0.1, 0.1, 0.1, 0.1)
    revised[0], rejected[0] = review("architect", 0.9, issues=blocked), review("architect", 0.1, issues=blocked)

    reports = aggregate(revised, PERSONAS).minority_reports

    assert [report.persona_id for report in reports or ()] == ["architect"]
    assert aggregate(rejected, PERSONAS).minority_reports is None


@pytest.mark.parametrize(("given", "named"), [([], "no reviews"), ([review("stranger", 0.5)], "stranger")])
def test_reviews_that_are_missing_or_nobodys_are_an_error(given: list[PersonaReview], named: str) -> None:
    with pytest.raises(PermanentError, match=named):
        aggregate(given, PERSONAS)
