"""The alerts of deploy/monitoring, in the order of the runbook."""

from __future__ import annotations

ALERTS = (
    "LaminaErrorRateHigh",
    "LaminaErrorRateCritical",
    "LaminaBacklogHigh",
    "LaminaJobsSlow",
    "LaminaDeadLetters",
    "LaminaEscalations",
    "LaminaNoHeartbeat",
    "LaminaRestarts",
    "LaminaGpuIdle",
    "LaminaFallbackShare",
)
