"""What the language model is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bridge.systems.consensus.personas import Persona, PromptSet
from bridge.systems.consensus.schemas import ExpandedProposal

# Of a field, of an entry of a list, and entries of a list.
_LONGEST_FIELD, _LONGEST_ENTRY, _MOST_ENTRIES = 2000, 500, 10


def idea_text(idea: str, extra_context: Any) -> str:
    """An idea, with what its author added: text as text, anything else as JSON."""
    if not extra_context:
        return idea
    plain = extra_context.get("text") if isinstance(extra_context, Mapping) and set(extra_context) == {"text"} else None
    added = plain if isinstance(plain, str) else json.dumps(extra_context, ensure_ascii=False, indent=1)
    return f"{idea}\n\nAdditional context:\n{added}"


def revision_text(idea: str, old: Mapping[str, Any], edited: Any, notes: str | None) -> str:
    """A proposal, and what is to be changed in it."""
    parts = [idea, f"The proposal as it was reviewed:\n{json.dumps(old, ensure_ascii=False, indent=1)}"]
    if edited:
        told = edited if isinstance(edited, str) else json.dumps(edited, ensure_ascii=False, indent=1)
        parts.append(f"The proposal as its author has edited it since:\n{told}")
    if notes:
        parts.append(f"What is to be changed:\n{notes}")
    return "\n\n".join(parts)


def review_instructions(prompts: PromptSet, persona: Persona) -> str:
    """Who the model is to be, and what it is to answer."""
    named = {"{persona_id}": persona.id, "{persona_name}": persona.name, "{persona_instructions}": persona.instructions}
    text = prompts.review
    for place, value in named.items():
        text = text.replace(place, value)
    return text


def proposal_text(proposal: ExpandedProposal) -> str:
    """A proposal as reviewers get it: what is very long is cut."""
    parts = [
        ("Title", proposal.title),
        ("Summary", _cut(proposal.summary or "", _LONGEST_FIELD)),
        ("Problem", _cut(proposal.problem_statement, _LONGEST_FIELD)),
        ("Solution", _cut(proposal.proposed_solution, _LONGEST_FIELD)),
        ("Assumptions", _list(proposal.assumptions)),
        ("Out of scope", _list(proposal.scope_non_goals)),
    ]
    return "\n\n".join(f"{name}:\n{text}" for name, text in parts if text)


def _list(entries: list[str]) -> str:
    return "\n".join(f"- {_cut(entry, _LONGEST_ENTRY)}" for entry in entries[:_MOST_ENTRIES])


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
