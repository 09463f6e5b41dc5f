"""The variables of the consensus pipeline's worker, under its own names; read beside those of `bridge.settings`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bridge.bad_values import bad_field
from bridge.errors import ConfigurationError

# As the platform's topic and subscription are called where nothing else is said.
_TOPIC, _SUBSCRIPTION = "consensus-engine-jobs", "consensus-engine-jobs-sub"
_EMULATED_PROJECT = "emulator-project"
_PLACEHOLDERS = frozenset({"your-api-key-here", "your_openai_api_key_here", "sk-your-key-here", "changeme", "change-me", "sk-xxx", "xxx"})
_PUBSUB_VARIABLES = ("PUBSUB_SUBSCRIPTION", "PUBSUB_TOPIC", "PUBSUB_PROJECT_ID", "PUBSUB_EMULATOR_HOST", "PUBSUB_USE_MOCK")
# Each says that there is a database of the platform's; an account alone does so for its worker only.
_PLACES = ("DB_HOST", "DB_NAME", "DB_PORT", "DB_INSTANCE_CONNECTION_NAME")
# Our own, before the worker's.
_SWITCH, _OUR_SUBSCRIPTIONS = "BRIDGE_CONSENSUS", "BRIDGE_PUBSUB_SUBSCRIPTIONS"
# Jobs come from one place.
_OTHER_SOURCES = ("BRIDGE_PUBSUB_PUSH_AUDIENCE", "BRIDGE_SQS_QUEUES", "BRIDGE_REDIS_QUEUES")
_TRUE = frozenset({"1", "true", "yes", "on"})

Temperature = Annotated[float, Field(ge=0, le=1)]


def _real_key(value: SecretStr) -> SecretStr:
    # Secrets are often kept with the end of a line, which no header takes.
    key = value.get_secret_value().strip()
    if key.lower() in _PLACEHOLDERS:
        raise ValueError("is a placeholder; set the key that the language model's service gave you")
    return SecretStr(key)


def _decoded(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError('is no JSON object such as {"gpt-5.1": [1.25, 10]}') from error


class ConsensusSettings(BaseSettings):
    """Each with the worker's own default. Those of its web service (CORS_…, DEFAULT_PERSONA_…) mean nothing to a worker."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True)

    # Whether runs are worked on: auto is on where OPENAI_API_KEY is set, and a variable of Pub/Sub under the worker's name.
    bridge_consensus: Literal["auto", "on", "off"] = "auto"
    # The service that is asked, and our key there.
    openai_api_key: Annotated[SecretStr, AfterValidator(_real_key)] = SecretStr("")
    openai_base_url: str = ""
    # A run's own parameters come before these.
    expand_model: str = "gpt-5.1"
    expand_temperature: Temperature = 0.7
    review_model: str = "gpt-5.1"
    review_temperature: Temperature = 0.2
    # Told in the last step's row; no model is asked there.
    aggregate_model: str = "gpt-5.1"
    aggregate_temperature: Temperature = 0.0
    # Of prompts, personas and schemas.
    persona_template_version: str = "1.0.0"
    # Tries of one call in all; the bound of the first wait in seconds, and what it grows by.
    max_retries_per_persona: Annotated[int, Field(ge=1, le=10)] = 3
    retry_initial_backoff_seconds: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    retry_backoff_multiplier: Annotated[float, Field(ge=1, le=10)] = 2.0
    # Of expanding, and of all reviews together; and of one try at a run.
    worker_step_timeout_seconds: Annotated[float, Field(ge=10, le=1800)] = 300.0
    worker_job_timeout_seconds: Annotated[float, Field(ge=60, le=7200)] = 1800.0
    # Jobs come from the embedded queue, and `bridge submit consensus` sends them there.
    pubsub_use_mock: bool = False
    # Of what `bridge submit consensus` takes, in characters.
    max_idea_length: Annotated[int, Field(ge=1)] = 10_000
    max_extra_context_length: Annotated[int, Field(ge=1)] = 50_000
    max_edited_proposal_length: Annotated[int, Field(ge=1)] = 100_000
    max_edit_notes_length: Annotated[int, Field(ge=1)] = 10_000
    # Ours: personas asked at once for one run, and the seconds that one call may take.
    bridge_llm_parallel_reviews: Annotated[int, Field(ge=1)] = 5
    bridge_llm_call_seconds: Annotated[float, Field(gt=0)] = 120.0
    # Requests and tokens a minute of one bridge; 0 for no limit.
    bridge_llm_requests_per_minute: Annotated[float, Field(ge=0)] = 0.0
    bridge_llm_tokens_per_minute: Annotated[float, Field(ge=0)] = 0.0
    # What one run may use, in tokens and in US dollars; 0 for no bound.
    bridge_llm_run_tokens: Annotated[int, Field(ge=0)] = 0
    bridge_llm_run_cost: Annotated[float, Field(ge=0)] = 0.0
    # US dollars for a million tokens of input and of output, by model: {"gpt-5.1": [1.25, 10]}. Without a price no cost is known.
    bridge_llm_prices: Annotated[dict[str, tuple[float, float]], NoDecode, BeforeValidator(_decoded)] = {}

    @property
    def served(self) -> bool:
        """Whether this bridge works on runs."""
        if self.bridge_consensus != "auto":
            return self.bridge_consensus == "on"
        return bool(self.openai_api_key.get_secret_value()) and any(os.environ.get(name) for name in _PUBSUB_VARIABLES)


def load_consensus() -> ConsensusSettings:
    """Read the environment. Raises `ConfigurationError`, naming each variable."""
    try:
        settings = ConsensusSettings()
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(bad_field(ConsensusSettings, problem["loc"], problem["msg"]) for problem in error.errors())
        ) from error
    if settings.bridge_llm_run_cost and not settings.bridge_llm_prices:
        raise ConfigurationError(
            "BRIDGE_LLM_RUN_COST is set, but no price is known; set BRIDGE_LLM_PRICES too, or BRIDGE_LLM_RUN_TOKENS instead"
        )
    return settings


def check_key(settings: ConsensusSettings) -> None:
    """A worker of runs needs the language model's key; commands that only ask for runs do not. Raises `ConfigurationError`."""
    if not settings.openai_api_key.get_secret_value() and _pulls_runs(os.environ):
        # Without this a worker whose secret is missing would start, be healthy, and do nothing.
        raise ConfigurationError(
            "OPENAI_API_KEY is not set; set it to the language model's key, as PUBSUB_SUBSCRIPTION names the consensus pipeline's runs. "
            "For other jobs unset that and use BRIDGE_PUBSUB_SUBSCRIPTIONS, or set BRIDGE_CONSENSUS=off"
        )


def implied_settings(environment: Mapping[str, str]) -> Mapping[str, str]:
    """What the worker's variables say about settings of ours, by their names. `environment`: names in upper case."""
    found: dict[str, str] = {}
    if location := _database(environment):
        found["database"] = location
    # Where runs are asked for needs no key: whoever retries one without would else send it to the embedded queue, where nobody looks.
    if not _is_elsewhere(environment) and (_asks(environment) or _pulls_runs(environment)):
        found["pubsub_subscriptions"] = environment.get("PUBSUB_SUBSCRIPTION") or _SUBSCRIPTION
        found["pubsub_topic"] = environment.get("PUBSUB_TOPIC") or _TOPIC
        if environment.get("PUBSUB_EMULATOR_HOST"):
            found["pubsub_project"] = environment.get("PUBSUB_PROJECT_ID") or _EMULATED_PROJECT
        found["concurrency"] = environment.get("WORKER_MAX_CONCURRENCY") or "10"
    return found


def _is_elsewhere(environment: Mapping[str, str]) -> bool:
    """Whether jobs come from another place than the worker's subscription; a bridge that does no runs must not take them from there."""
    if environment.get(_SWITCH, "").lower() == "off":
        return True
    return any(environment.get(name) for name in _OTHER_SOURCES) or environment.get("PUBSUB_USE_MOCK", "").lower() in _TRUE


def _pulls_runs(environment: Mapping[str, str]) -> bool:
    """Whether jobs come from a subscription under the worker's name, be there a key or none."""
    named = environment.get("PUBSUB_SUBSCRIPTION") and not environment.get(_OUR_SUBSCRIPTIONS)
    return bool(named) and not _is_elsewhere(environment)


def _asks(environment: Mapping[str, str]) -> bool:
    """Whether these are a worker's variables."""
    return bool(environment.get("OPENAI_API_KEY", "").strip()) and any(environment.get(name) for name in _PUBSUB_VARIABLES)


def _database(environment: Mapping[str, str]) -> str:
    """The database that DB_… name; empty when they do not."""
    name, user = environment.get("DB_NAME") or "consensus_engine", environment.get("DB_USER") or "postgres"
    password = environment.get("DB_PASSWORD", "")
    if environment.get("USE_CLOUD_SQL_CONNECTOR", "").lower() in _TRUE:
        by_iam = environment.get("DB_IAM_AUTH", "").lower() in _TRUE
        account = quote(user, safe="") + (f":{quote(password, safe='')}" if password and not by_iam else "")
        return f"cloudsql://{account}@{environment.get('DB_INSTANCE_CONNECTION_NAME', '')}/{quote(name, safe='')}"
    if not any(environment.get(variable) for variable in _PLACES) and not (_asks(environment) and (password or environment.get("DB_USER"))):
        return ""
    host = environment.get("DB_HOST") or "localhost"
    account = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    # A folder of sockets is the Auth Proxy's.
    if host.startswith("/"):
        return f"postgresql://{account}@/{quote(name, safe='')}?host={quote(host, safe='')}&port={environment.get('DB_PORT') or '5432'}"
    return f"postgresql://{account}@{host}:{environment.get('DB_PORT') or '5432'}/{quote(name, safe='')}"
