"""The seven steps of a run, as the platform names and orders them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PipelineStep:
    """One step."""

    name: str
    order: int
    # What its failure begins with.
    failure: str
    # Empty for a step that is nobody's review.
    persona: str = ""


EXPAND = PipelineStep(name="expand", order=0, failure="Expand failed")
REVIEWS = tuple(
    PipelineStep(name=name, order=order, failure="Reviews failed", persona=persona)
    for order, (name, persona) in enumerate(
        [
            ("review_architect", "architect"),
            ("review_critic", "critic"),
            ("review_optimist", "optimist"),
            ("review_security", "security_guardian"),
            ("review_user_advocate", "user_advocate"),
        ],
        start=1,
    )
)
AGGREGATE = PipelineStep(name="aggregate_decision", order=6, failure="Aggregation failed")
STEPS = (EXPAND, *REVIEWS, AGGREGATE)
BY_PERSONA: Mapping[str, PipelineStep] = {step.persona: step for step in REVIEWS}
