"""What the language model is told."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigurationError
from bridge.systems.consensus import prompts
from bridge.systems.consensus.personas import load_prompts
from bridge.systems.consensus.schemas import ExpandedProposal

PROMPTS = load_prompts("1.0.0")


def proposal(**changes: object) -> ExpandedProposal:
    sound = {"problem_statement": "P", "proposed_solution": "S", "assumptions": ["A"], "scope_non_goals": ["N"]}
    return ExpandedProposal.model_validate({**sound, **changes})


def test_the_personas_come_in_the_platforms_order_with_its_weights() -> None:
    assert [(persona.id, persona.name, persona.weight) for persona in PROMPTS.personas] == [
        ("architect", "Architect", 0.25),
        ("critic", "Critic", 0.25),
        ("optimist", "Optimist", 0.15),
        ("security_guardian", "SecurityGuardian", 0.20),
        ("user_advocate", "UserAdvocate", 0.15),
    ]


def test_each_reviewer_is_told_who_they_are() -> None:
    for persona in PROMPTS.personas:
        text = prompts.review_instructions(PROMPTS, persona)
        assert f"You are {persona.name} (persona_id {persona.id})" in text
        assert persona.instructions in text
        assert "{" not in text


def test_a_version_without_prompts_is_refused_with_those_that_there_are() -> None:
    for version in ("2.0.0", "", "../1.0.0/.."):
        with pytest.raises(ConfigurationError, match=r"1\.0\.0"):
            load_prompts(version)


def test_context_goes_along_as_text_or_as_json() -> None:
    assert prompts.idea_text("Idea", None) == "Idea"
    assert prompts.idea_text("Idea", {"text": "For nurses"}).endswith("Additional context:\nFor nurses")
    assert '"budget": 5' in prompts.idea_text("Idea", {"budget": 5})


def test_a_revision_tells_the_old_proposal_the_edits_and_the_notes() -> None:
    text = prompts.revision_text("Idea", {"title": "Old"}, {"title": "Edited"}, "Make it shorter")

    assert [part in text for part in ("Idea", '"title": "Old"', '"title": "Edited"', "Make it shorter")] == [True] * 4


def test_reviewers_get_the_title_first_and_long_texts_cut() -> None:
    text = prompts.proposal_text(
        proposal(title="T", summary="U", problem_statement="p" * 3000, assumptions=[f"{number}" + "a" * 600 for number in range(12)])
    )

    assert text.startswith("Title:\nT\n\nSummary:\nU\n\nProblem:\n")
    assert "p" * 1999 in text
    assert "p" * 2001 not in text
    assert text.count("\n- ") == 11, "ten assumptions, and one thing out of scope"
    assert "a" * 501 not in text
