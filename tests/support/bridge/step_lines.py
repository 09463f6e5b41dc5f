"""What the bridge writes into its log of the steps that metrics are made of."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog

from bridge import logs
from bridge.steps import Step, StepTaken

STEPS = {
    "a job with a result": StepTaken(
        step=Step.COMMITTED, job_key="1", system="documents", seconds=0.5, outcome="succeeded", since_receipt=2.5
    ),
    "a job that another program did": StepTaken(
        step=Step.COMMITTED, job_key="4", system="documents", seconds=0.5, outcome="succeeded", since_receipt=2.5, fallback="tesseract"
    ),
    "a job that failed": StepTaken(
        step=Step.COMMITTED, job_key="2", system="documents", seconds=0.5, outcome="failed", since_receipt=400.0
    ),
    "a message that cannot be read": StepTaken(step=Step.BURIED, job_key="", system="", seconds=0.1),
    "a job that waits for a server": StepTaken(step=Step.HANDLED, job_key="5", system="labs", seconds=0.1, outcome="OverloadError"),
    "a job that waits for a model": StepTaken(step=Step.HANDLED, job_key="9", system="slides", seconds=0.1, outcome="HeldUpError"),
    "a job that a setting keeps": StepTaken(step=Step.HANDLED, job_key="6", system="labs", seconds=0.1, outcome="ConfigurationError"),
    "a slide that the server may not read": StepTaken(
        step=Step.HANDLED, job_key="7", system="wsi-requests", seconds=0.1, outcome="NotYetError"
    ),
    "a slide that waits for its shares": StepTaken(step=Step.HANDLED, job_key="8", system="slides", seconds=0.1, outcome="NotYetError"),
    "a job that begins": StepTaken(step=Step.CLAIMED, job_key="3", system="documents", seconds=0.1),
}


def written(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    """The line of each step."""
    logs.configure("info")
    log = logs.StepLog()
    for taken in STEPS.values():
        log.on_step(taken)
    structlog.reset_defaults()
    return dict(zip(STEPS, map(json.loads, capsys.readouterr().err.splitlines()), strict=True))
