"""The variables of the lab platform's worker, under its own names; read beside those of `bridge.settings`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.bad_values import bad_field
from bridge.errors import ConfigurationError

_DEFAULT_LEASE, _DEFAULT_WAIT, _MOST_RECEIPTS = "300", "20", "3"
# Which of the worker's variables speaks for a setting of ours, for who is told that it is wrong.
VARIABLES = {"lease_seconds": "ML_WORKER_VISIBILITY_TIMEOUT", "poll_seconds": "ML_WORKER_WAIT_TIME", "concurrency": "ML_WORKER_BATCH_SIZE"}


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{name!r} is no time zone, such as Asia/Kolkata") from error
    return name


class LabWorkerSettings(BaseSettings):
    """Each with the worker's own default."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True)

    # Jobs from SQS, the rollups of what waits in the tables, or both. Unset, and without a queue, this bridge serves no lab platform.
    ml_worker_mode: Literal["sqs", "aggregation", "both"] | None = None
    # The queue that jobs come from.
    ml_worker_sqs_queue_url: str = ""
    # Seconds between two looks at the tables, in mode `sqs` at rows that failed and are due; 0 for one look, until nothing waits, after
    # which mode `aggregation` ends, and else for looks at those rows alone.
    aggregation_interval: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    # `zivo` for the figures of the worker that we replace.
    aggregation_compat: Literal["", "zivo"] = ""
    # Of the local times in the tables.
    default_timezone: Annotated[str, AfterValidator(_known_zone)] = "Asia/Kolkata"
    # Rows of one transaction.
    vitals_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000

    @property
    def served(self) -> bool:
        """Whether this bridge serves the lab platform."""
        return self.ml_worker_mode is not None or bool(self.ml_worker_sqs_queue_url)

    @property
    def rolls_up(self) -> bool:
        """Whether it looks at the tables by itself."""
        return self.ml_worker_mode in {"aggregation", "both"}


def load_lab_worker() -> LabWorkerSettings:
    """Read the environment. Raises `ConfigurationError`, naming each variable."""
    try:
        settings = LabWorkerSettings()
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(bad_field(LabWorkerSettings, problem["loc"], problem["msg"]) for problem in error.errors())
        ) from error
    if settings.ml_worker_mode in {"sqs", "both"} and not (settings.ml_worker_sqs_queue_url or os.environ.get("BRIDGE_SQS_QUEUES")):
        raise ConfigurationError(
            f"ML_WORKER_SQS_QUEUE_URL is not set; set it to the queue's URL, as ML_WORKER_MODE is {settings.ml_worker_mode}"
        )
    return settings


def implied_settings(environment: Mapping[str, str]) -> Mapping[str, str]:
    """What the worker's variables say about settings of ours, by their names. `environment`: names in upper case."""
    found: dict[str, str] = {}
    if environment.get("POSTGRES_SERVER"):
        found["database"] = _database(environment)
    if environment.get("ML_WORKER_SQS_QUEUE_URL") and environment.get("ML_WORKER_MODE", "sqs") != "aggregation":
        wait = environment.get("ML_WORKER_WAIT_TIME") or _DEFAULT_WAIT
        found |= {
            "sqs_queues": environment["ML_WORKER_SQS_QUEUE_URL"],
            "lease_seconds": environment.get("ML_WORKER_VISIBILITY_TIMEOUT") or _DEFAULT_LEASE,
            # 0 asked without waiting, over and over.
            "poll_seconds": "1" if wait.strip() == "0" else wait,
            "concurrency": environment.get("ML_WORKER_BATCH_SIZE") or "1",
            "max_attempts": _MOST_RECEIPTS,
        }
    return found


def _database(environment: Mapping[str, str]) -> str:
    user = quote(environment.get("POSTGRES_USER") or "postgres", safe="")
    password = environment.get("POSTGRES_PASSWORD", "")
    account = f"{user}:{quote(password, safe='')}" if password else user
    name = quote(environment.get("POSTGRES_DB") or environment.get("POSTGRES_USER") or "postgres", safe="")
    return f"postgresql://{account}@{environment['POSTGRES_SERVER']}:{environment.get('POSTGRES_PORT') or '5432'}/{name}"
