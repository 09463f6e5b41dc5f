"""The settings of the bridge: each is a variable that starts with BRIDGE_. Beside them only `settings_…` read the environment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bridge import settings_cards, settings_consensus, settings_labs
from bridge.bad_values import bad_field
from bridge.errors import ConfigurationError

PREFIX = "BRIDGE_"


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not host:port, such as 127.0.0.1:8080")
    return value


def _address_or_nothing(value: str) -> str:
    return _address(value) if value not in {"", "off"} else ""


def _addresses(value: str) -> str:
    return ",".join(_address(part.strip()) for part in value.split(","))


def _off_by_another_name(value: object) -> object:
    return "off" if value in {"", "none"} else value


def _folders(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _json_object(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError('is no JSON object such as {"jobs": {"processing": "jobs:in-work"}}') from error


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """Each with a default that works on one machine with nothing set up."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    # Queue, ledger and outbox: a file, made when missing; or a PostgreSQL server, as an address, or as libpq, Npgsql or Cloud SQL have it.
    database: Annotated[str, Field(repr=False)] = ".lamina/bridge.db"
    # Of a server: connections that are kept, those that may come on top, how long one is waited for, and after how long it is renewed.
    database_pool_size: Count = 8
    database_pool_overflow: Annotated[int, Field(ge=0)] = 8
    database_pool_seconds: Seconds = 30.0
    database_recycle_seconds: Seconds = 1800.0
    # The schema of PostgreSQL that our tables lie in; made when missing.
    database_schema: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")] = "lamina"
    # The folder or URL prefix that results are written to.
    results: str = "results"
    # Whether the inference server reaches that place under the same name and writes there itself; else results are streamed.
    results_shared: bool = True
    # Folders whose files jobs may name, separated by commas.
    read_roots: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_folders)] = (Path(),)
    # The inference servers: a name that stands for all of them, or several addresses, separated by commas.
    inference: Annotated[str, AfterValidator(_addresses)] = "127.0.0.1:8001"
    # TLS to them: whether, the roots of their certificates (unset for the public ones), and our own certificate and key where they ask.
    inference_tls: bool = False
    inference_tls_ca: Path | None = None
    inference_tls_certificate: Path | None = None
    inference_tls_key: Path | None = None
    # Our token for them, or a file with nothing else in it, which may change while the bridge runs.
    inference_token: SecretStr = SecretStr("")
    inference_token_file: Path | None = None
    # Whether the token may go to another machine without TLS.
    inference_insecure: bool = False
    # The queue that jobs come from, and the queue that results go to when a job names none.
    queue: Annotated[str, Field(min_length=1)] = "jobs"
    results_queue: Annotated[str, Field(min_length=1)] = "results"
    # In the embedded queue: after so many messages of one priority in a row a less urgent one gets its turn.
    urgent_in_a_row: Count = 8
    # Queues of SQS that jobs come from instead, by name or URL, the most urgent first, separated by commas.
    sqs_queues: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_folders)] = ()
    # After so many messages of one of them in a row the next gets its turn.
    sqs_urgent_in_a_row: Count = 8
    # Where bodies lie that are too large for SQS, and the largest that is carried.
    sqs_payload_bucket: str = ""
    sqs_payload_bytes: Count = 32 * 1024 * 1024
    # How AWS is reached. The endpoint is an emulator's. Keys that are empty are found as every AWS program finds them.
    aws_region: str = "us-east-1"
    aws_endpoint: str = ""
    aws_access_key: SecretStr = SecretStr("")
    aws_secret_key: SecretStr = SecretStr("")
    # Of keys that are lent for a while.
    aws_session_token: SecretStr = SecretStr("")
    # A role to take on, what its owner wants to be told, and for how long it is taken on at a time.
    aws_role_arn: str = ""
    aws_role_external_id: str = ""
    aws_role_seconds: Annotated[int, Field(ge=900, le=43_200)] = 3600
    # The part of MassTransit's addresses between region and queue.
    aws_scope: str = ""
    # The bucket of the platform's slides, which its results go to; empty when there is no such platform. Its region, where it is another.
    wsi_bucket: str = ""
    wsi_bucket_region: str = ""
    # What its slides are analysed for; empty for the server's default.
    wsi_analysis: str = ""
    # Micrometres per pixel of level 0 that are assumed of its slides that tell none; unset to fail them.
    wsi_mpp: Annotated[float, Field(ge=0.05, le=100, allow_inf_nan=False)] | None = None
    # Whether their colours are brought to sRGB by their ICC profiles.
    wsi_icc: bool = False
    # Subscriptions of Pub/Sub that jobs come from instead, the most urgent first, separated by commas; and the topic of the first,
    # which `bridge submit` and `bridge dead replay` publish to.
    pubsub_subscriptions: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_folders)] = ()
    pubsub_topic: str = ""
    # After so many messages of one of them in a row the next gets its turn.
    pubsub_urgent_in_a_row: Count = 8
    # The project of names that do not tell theirs, and a key's file where the machine has no service account. The emulator is host:port.
    pubsub_project: str = ""
    pubsub_credentials: Path | None = None
    pubsub_emulator: str = ""
    # A stream without a sign of life for so long is opened anew.
    pubsub_silence_seconds: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 90.0
    # Pub/Sub may push jobs to /push: what their tokens are made for, and the account that makes them; empty for no pushes.
    pubsub_push_audience: str = ""
    pubsub_push_account: str = ""
    # Pushes are refused while so many messages wait.
    pubsub_push_limit: Count = 1000
    # Lists of Redis that jobs come from instead, the most urgent first, separated by commas.
    redis_queues: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_folders)] = ()
    # After so many items of one of them in a row the next gets its turn.
    redis_urgent_in_a_row: Count = 8
    # Other names of a list's keys than `list:processing` and so on, where other programs share them: {"list": {"processing": "set"}}.
    redis_keys: Annotated[dict[str, dict[str, str]], NoDecode, BeforeValidator(_json_object)] = {}
    # Where Redis is, and the roots of its certificate (unset for the public ones).
    redis_url: SecretStr = SecretStr("")
    redis_tls_ca: Path | None = None
    # Items that another program took off a list and left in its set are done again after so long; 0 leaves them alone.
    redis_adopt_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    # How often such items are looked for; 0 for a tenth of that.
    redis_look_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    # How long locks last that other programs look for, unless they are renewed or their items given back; at least as long as leases.
    redis_lock_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    # Where a result is stored beside being published, and for how long.
    redis_result_key: str = "{channel}:{job_key}:{type}"
    redis_result_keep_seconds: Seconds = 7 * 24 * 3600.0
    # Jobs at once.
    concurrency: Count = 2
    # How long a dead worker's job is left alone; leases are renewed at a third of it.
    lease_seconds: Annotated[float, Field(ge=0.2, le=43_200)] = 60.0
    # Failed tries after which a job is given up. Interruptions and a missing server count none.
    max_attempts: Count = 5
    # How many bridges or inference servers in a row may die or freeze over a job that gets no further, before it is given up as the cause.
    max_interruptions: Count = 50
    # How many times in a row an inference server is lost over a job that it had begun, and that gets no further, until it is given up.
    max_server_losses: Count = 5
    # How often every inference server is told of the reviewed names of lab tests; 0 for never.
    lab_alias_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    # After so many days jobs that ended, or were begun and left alone, messages that were sent, and dead letters are removed.
    keep_days: Seconds = 30.0
    # The bound of the first wait after a failure, doubled with each; and the longest.
    backoff_seconds: Seconds = 1.0
    backoff_limit_seconds: Seconds = 60.0
    # How long one poll for messages may take; a stop waits for it.
    poll_seconds: Annotated[float, Field(gt=0, le=settings_cards.MOST_POLL_SECONDS, allow_inf_nan=False)] = 1.0
    # How long running jobs may go on after SIGTERM.
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 25.0
    # Where health, metrics and job status are served; empty or `off` for nowhere.
    http: Annotated[str, AfterValidator(_address_or_nothing)] = "127.0.0.1:8080"
    # /metrics asks the database and the queues what they hold at most so often; 0 for at each scrape.
    metrics_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    # Where spans are told, by OTLP over gRPC; off for nowhere. Traces are passed on all the same.
    traces: Annotated[Literal["off", "otlp"], BeforeValidator(_off_by_another_name)] = "off"
    traces_endpoint: str = "http://127.0.0.1:4317"
    # name=value,name=value; such as a collector's key.
    traces_headers: SecretStr = SecretStr("")
    # How the bridge is called there, and the share of the traces that begin here which are told.
    traces_service: str = "lamina-bridge"
    traces_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    # A loop or a heartbeat without a sign of life for so long fails /livez.
    stuck_seconds: Seconds = 300.0
    # ECS: whether the task is protected from scale-in while a job runs, for how many minutes at a time, and where the agent is.
    ecs_protection: bool = True
    ecs_protection_minutes: Annotated[int, Field(ge=1, le=2880)] = 60
    ecs_agent_uri: str = ""
    # EC2 Spot: whether the machine's metadata is watched for the notice that it will be taken, or for rebalance recommendations too.
    spot_watch: Literal["off", "interruption", "rebalance"] = "off"
    spot_metadata: str = "http://169.254.169.254"
    # The least level that is logged.
    log_level: Literal["debug", "info", "warning", "error"] = "info"


# Names that the systems around us have given their variables; ours come first. Read as .NET reads them, in any casing.
_NAMES_OF_OTHERS = {
    "aws_region": ("AWS__Region", "AWS_REGION", "AWS_DEFAULT_REGION"),
    "aws_endpoint": ("AWS__ServiceUrl", "AWS_ENDPOINT_URL"),
    "aws_access_key": ("AWS__AccessKey",),
    "aws_secret_key": ("AWS__SecretKey",),
    "aws_scope": ("AWS__Scope",),
    "wsi_bucket": ("AWS__S3__BucketName",),
    "wsi_bucket_region": ("AWS__S3__Region",),
    "database": ("ConnectionStrings__DefaultConnection",),
    "database_pool_size": ("DB_POOL_SIZE",),
    "database_pool_overflow": ("DB_MAX_OVERFLOW",),
    "database_pool_seconds": ("DB_POOL_TIMEOUT",),
    "database_recycle_seconds": ("DB_POOL_RECYCLE",),
    "inference": ("Wsi__InferenceServiceUrl",),
    "traces": ("OTEL_TRACES_EXPORTER",),
    "traces_endpoint": ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "traces_headers": ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"),
    "traces_service": ("OTEL_SERVICE_NAME",),
    "traces_ratio": ("OTEL_TRACES_SAMPLER_ARG",),
    "ecs_agent_uri": ("ECS_AGENT_URI",),
    "spot_metadata": ("AWS_EC2_METADATA_SERVICE_ENDPOINT",),
    "pubsub_project": ("PUBSUB_PROJECT_ID", "GOOGLE_CLOUD_PROJECT"),
    "pubsub_credentials": ("PUBSUB_CREDENTIALS_FILE",),
    "pubsub_emulator": ("PUBSUB_EMULATOR_HOST",),
}


def load(**overrides: Any) -> Settings:
    """Read the environment; `overrides` that are not None come first. Raises `ConfigurationError`, naming each variable and the fix."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**{**_set_by_others(), **given})
    except ValidationError as error:
        raise ConfigurationError("; ".join(_problem(problem["loc"], problem["msg"]) for problem in error.errors())) from error


def _set_by_others() -> dict[str, str]:
    """What variables of other systems say, where ours say nothing."""
    environment = {name.lower(): value for name, value in os.environ.items() if value}
    upper = {name.upper(): value for name, value in environment.items()}
    workers = (settings_cards, settings_labs, settings_consensus)
    implied = {field: value for worker in workers for field, value in worker.implied_settings(upper).items()}
    found = {field: value for field, value in implied.items() if f"{PREFIX}{field}".lower() not in environment}
    for field, names in _NAMES_OF_OTHERS.items():
        value = next((environment[name.lower()] for name in names if name.lower() in environment), None)
        if value is not None and f"{PREFIX}{field}".lower() not in environment:
            found[field] = value
    if "://" in (url := found.get("inference", "")):
        scheme, _, rest = url.partition("://")
        found["inference"] = rest.rstrip("/")
        if scheme.lower() == "https" and f"{PREFIX}inference_tls".lower() not in environment:
            found["inference_tls"] = "true"
    return found


def _problem(location: Sequence[str | int], message: str) -> str:
    name = str(location[0]) if location else ""
    others = _NAMES_OF_OTHERS.get(name, ())
    if (variable := settings_labs.VARIABLES.get(name, "")) in os.environ:
        others = (*others, variable)
    return bad_field(Settings, location, message, prefix=PREFIX) + (f"; {', '.join(others)} set it too" if others else "")
