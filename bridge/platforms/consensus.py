"""The consensus pipeline, opened as its settings say: its handler, its language model, its tables, its route."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.database.port import Database
from bridge.errors import ConfigurationError
from bridge.records.consensus import ConsensusRecords
from bridge.settings_consensus import ConsensusSettings
from bridge.systems.consensus.handler import ConsensusHandler
from bridge.systems.consensus.options import ModelChoice, RunOptions
from bridge.transports.checks import check_installed

if TYPE_CHECKING:
    from starlette.routing import Route

    from bridge.llm.responses import ResponsesModel


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What is served of it."""

    handler: ConsensusHandler
    routes: Sequence[Route]
    # Whether a run is to be worked on, and nobody has begun.
    is_queued: Callable[[str], Awaitable[bool]]


@asynccontextmanager
async def open_pipeline(settings: ConsensusSettings, database: Database) -> AsyncIterator[Pipeline]:
    """Set the pipeline up, its tables checked. Raises `ConfigurationError`, `TransientError`."""
    from bridge.http.runs import RunRoutes

    records = ConsensusRecords(database)
    await records.check()
    model = language_model(settings)
    try:
        handler = ConsensusHandler(records=records, model=model, options=run_options(settings))
        yield Pipeline(handler=handler, routes=RunRoutes(records.find).routes(), is_queued=records.is_queued)
    finally:
        await model.close()


def language_model(settings: ConsensusSettings) -> ResponsesModel:
    """Whom questions are asked. Raises `ConfigurationError`."""
    if not settings.openai_api_key.get_secret_value():
        raise ConfigurationError(
            "OPENAI_API_KEY is not set; set it to your key of the language model's service, or BRIDGE_CONSENSUS to off"
        )
    check_installed("openai", "llm", "OPENAI_API_KEY")
    from bridge.llm.limits import RateLimits
    from bridge.llm.responses import CallPolicy, ResponsesModel

    policy = CallPolicy(
        tries=settings.max_retries_per_persona,
        wait=settings.retry_initial_backoff_seconds,
        wait_factor=settings.retry_backoff_multiplier,
        seconds=settings.bridge_llm_call_seconds,
        prices=settings.bridge_llm_prices,
    )
    limits = RateLimits(requests=settings.bridge_llm_requests_per_minute, tokens=settings.bridge_llm_tokens_per_minute)
    return ResponsesModel(
        api_key=settings.openai_api_key.get_secret_value(), base_url=settings.openai_base_url, policy=policy, limits=limits
    )


def run_options(settings: ConsensusSettings) -> RunOptions:
    """How runs are worked on."""
    return RunOptions(
        expand=ModelChoice(model=settings.expand_model, temperature=settings.expand_temperature),
        review=ModelChoice(model=settings.review_model, temperature=settings.review_temperature),
        aggregate=ModelChoice(model=settings.aggregate_model, temperature=settings.aggregate_temperature),
        version=settings.persona_template_version,
        tries=settings.max_retries_per_persona,
        step_seconds=settings.worker_step_timeout_seconds,
        job_seconds=settings.worker_job_timeout_seconds,
        parallel_reviews=settings.bridge_llm_parallel_reviews,
        most_tokens=settings.bridge_llm_run_tokens,
        most_cost=settings.bridge_llm_run_cost,
    )
