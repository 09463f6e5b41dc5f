"""What the settings say about runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model is asked."""

    model: str
    temperature: float


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How runs are worked on. A run's own parameters come before the models named here."""

    expand: ModelChoice
    review: ModelChoice
    aggregate: ModelChoice
    # Of prompts, schemas and personas.
    version: str = "1.0.0"
    # Tries of one call; told in each step's row.
    tries: int = 3
    # Of expanding, and of all reviews together, in seconds.
    step_seconds: float = 300.0
    # Of one try at a run, in seconds.
    job_seconds: float = 1800.0
    # Personas asked at once.
    parallel_reviews: int = 5
    # What one run may use; 0 for no bound.
    most_tokens: int = 0
    # In US dollars.
    most_cost: float = 0.0
