"""How a run of the consensus pipeline stands, in the platform's shape: `GET /v1/runs/{run_id}`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bridge.errors import TransientError
from bridge.records.consensus import RunRecord
from bridge.systems.consensus.steps import STEPS

_VERSION = "1.0.0"
_VERSION_HEADERS = ("X-Schema-Version", "X-Prompt-Set-Version")
_PLAIN = (
    *(
        "created_at",
        "updated_at",
        "status",
        "queued_at",
        "started_at",
        "completed_at",
        "retry_count",
        "run_type",
        "priority",
        "parent_run_id",
    ),
    *("input_idea", "extra_context", "model", "temperature", "parameters_json", "overall_weighted_confidence", "decision_label"),
)
_OF_REVIEWS = ("persona_id", "persona_name", "confidence_score", "blocking_issues_present", "prompt_parameters_json")
_OF_STEPS = ("step_name", "step_order", "status", "started_at", "completed_at", "error_message")


class RunRoutes:
    """Answers in the platform's shape."""

    def __init__(self, find: Callable[[str], Awaitable[RunRecord | None]]) -> None:
        self._find = find

    def routes(self) -> Sequence[Route]:
        """What is served."""
        return [Route("/v1/runs/{run_id}", self._run)]

    async def _run(self, request: Request) -> Response:
        for header in _VERSION_HEADERS:
            if request.headers.get(header, _VERSION) != _VERSION:
                return _refusal(400, "UNSUPPORTED_VERSION", f"{header} is {request.headers[header]}; this is version {_VERSION}")
        try:
            run_id = str(UUID(request.path_params["run_id"]))
        except ValueError:
            return _refusal(400, "VALIDATION_ERROR", f"{request.path_params['run_id']!r} is no UUID")
        try:
            run = await self._find(run_id)
        except TransientError as error:
            return _refusal(503, "SERVICE_UNAVAILABLE", str(error))
        return _refusal(404, "NOT_FOUND", f"there is no run {run_id}") if run is None else JSONResponse(run_facts(run))


def run_facts(run: RunRecord) -> dict[str, Any]:
    """A run as the platform shows it; steps without a row are pending."""
    rows = {row["step_name"]: row for row in run.steps}
    absent: Mapping[str, Any] = {"status": "pending", "started_at": None, "completed_at": None, "error_message": None}
    order = [step.persona for step in STEPS]
    reviews = sorted(run.reviews, key=lambda review: order.index(review["persona_id"]) if review["persona_id"] in order else len(order))
    steps = [rows.get(step.name) or {"step_name": step.name, "step_order": step.order, **absent} for step in STEPS]
    return {
        "run_id": run.id,
        **{name: _plain(getattr(run, name)) for name in _PLAIN},
        "schema_version": run.schema_version or "unknown",
        "prompt_set_version": run.prompt_set_version,
        "proposal": run.proposal,
        "persona_reviews": [{name: review[name] for name in _OF_REVIEWS} for review in reviews],
        "decision": run.decision,
        "step_progress": [{name: step[name] for name in _OF_STEPS} for step in steps],
    }


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _refusal(status: int, code: str, message: str) -> Response:
    return JSONResponse({"code": code, "message": message}, status_code=status)
