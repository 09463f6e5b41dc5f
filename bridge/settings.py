"""The settings of the bridge: the only reader of the environment. Each is a variable that starts with BRIDGE_."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bridge.errors import ConfigurationError

PREFIX = "BRIDGE_"


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not host:port, such as 127.0.0.1:8080")
    return value


def _address_or_nothing(value: str) -> str:
    return _address(value) if value not in {"", "off"} else ""


def _folders(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseSettings):
    """Each with a default that works on one machine with nothing set up."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    # Queue, ledger and outbox: a file, made when missing.
    database: str = ".lamina/bridge.db"
    # The folder or URL prefix that results are written to.
    results: str = "results"
    # Whether the inference server reaches that place under the same name and writes there itself; else results are streamed.
    results_shared: bool = True
    # Folders whose files jobs may name, separated by commas.
    read_roots: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_folders)] = (Path(),)
    # The inference server.
    inference: Annotated[str, AfterValidator(_address)] = "127.0.0.1:8001"
    # The queue that jobs come from, and the queue that results go to when a job names none.
    queue: Annotated[str, Field(min_length=1)] = "jobs"
    results_queue: Annotated[str, Field(min_length=1)] = "results"
    # Jobs at once.
    concurrency: Count = 2
    # How long a dead worker's job is left alone; leases are renewed at a third of it.
    lease_seconds: Annotated[float, Field(ge=0.2, le=43_200)] = 60.0
    # Failed tries after which a job is given up. Interruptions and a missing server count none.
    max_attempts: Count = 5
    # The bound of the first wait after a failure, doubled with each; and the longest.
    backoff_seconds: Seconds = 1.0
    backoff_limit_seconds: Seconds = 60.0
    # How long one poll for messages may take.
    poll_seconds: Seconds = 1.0
    # How long running jobs may go on after SIGTERM.
    drain_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 25.0
    # Where health, metrics and job status are served; empty or `off` for nowhere.
    http: Annotated[str, AfterValidator(_address_or_nothing)] = "127.0.0.1:8080"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def load(**overrides: Any) -> Settings:
    """Read the environment; `overrides` that are not None come first. Raises `ConfigurationError`, naming each variable and the fix."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError("; ".join(_problem(problem["loc"], problem["msg"]) for problem in error.errors())) from error


def _problem(location: Sequence[str | int], message: str) -> str:
    name = str(location[0]) if location else "settings"
    default = Settings.model_fields[name].get_default() if name in Settings.model_fields else None
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    text = message.removeprefix("Value error, ")
    return f"{PREFIX}{name.upper()}: {text[:1].lower()}{text[1:]}; set it right, or unset it for the default ({shown})"
