"""The variables of the card platform's OCR worker, under its own names; read beside those of `bridge.settings`."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bridge.bad_values import bad_value
from bridge.errors import ConfigurationError
from bridge.escalations import ESCALATIONS, keys_of

# Of any bridge: a stop waits for a poll.
MOST_POLL_SECONDS = 60
_PREFIX = "filot:ocr:gpu"
_CPU = "filot:ocr"
# What the bridge keeps beside a list, where it has no other name: `list:leases` and so on.
_BESIDE = ("processing", "leases", "delayed", "deliveries", "started", "holders", "bodies", "attributes")
# Of both lists, so that a document that lies in both is one job.
_SHARED_KEYS = {"correlation": f"{_PREFIX}:correlation", "locks": f"{_PREFIX}:lock:"}


# To the letter, as the worker reads them.
def _on(value: object) -> object:
    return value in {"true", "1"} if isinstance(value, str) else value


def _not_off(value: object) -> object:
    return value != "false" if isinstance(value, str) else value


def _http_address(value: str) -> str:
    parts = urlsplit(value.strip())
    if value and (parts.scheme not in {"http", "https"} or not parts.hostname):
        raise ValueError("it is no address such as https://name.example")
    return value.strip()


# Seconds of one engine for one document. A call to the inference server ends after an hour in any case.
Limit = Annotated[float, Field(gt=0, le=3600)]
# Secrets are often kept with the end of a line, which no header takes.
Key = Annotated[SecretStr, BeforeValidator(lambda value: value.strip() if isinstance(value, str) else value)]
HttpAddress = Annotated[str, AfterValidator(_http_address)]


class CardWorkerSettings(BaseSettings):
    """Each with the worker's own default. What the bridge reads as settings of its own is not repeated here."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True)

    # Whether a GPU is to be there; the inference server knows what it has.
    ocr_gpu_enabled: Annotated[bool, BeforeValidator(_on)] = False
    # `none` or `void`: the container has no GPU, whatever the former says.
    nvidia_visible_devices: str = ""
    # Whether the inference server's CPU may read what its GPU does not, and Tesseract, in the last try, what the server does not.
    ocr_gpu_autofallback: Annotated[bool, BeforeValidator(_not_off)] = True
    # The folder of Tesseract's languages, which are to have ind, eng and osd; empty for its own.
    tessdata_prefix: str = ""
    # Failed tries after which a document is given up.
    ocr_gpu_max_retries: Annotated[int, Field(ge=1)] = 3
    # Milliseconds after which a document that a worker has left in its hands is read again.
    ocr_gpu_stuck_timeout: Annotated[float, Field(gt=0)] = 300_000
    # Where results are published.
    ocr_gpu_publish_channel: str = f"{_PREFIX}:results"
    # Where the documents' objects lie. Without a bucket this bridge serves no card platform.
    cf_r2_endpoint: HttpAddress = ""
    cf_r2_access_key_id: Key = SecretStr("")
    cf_r2_secret_access_key: Key = SecretStr("")
    cf_r2_bucket_name: str = ""
    # Ours: R2 has but one; other stores that speak S3 want their own.
    cf_r2_region: str = "auto"
    # As the platform names where it runs; told in its health and metrics.
    node_env: str = "production"
    # The service where people review.
    buli2_api_url: HttpAddress = "http://localhost:8080"
    buli2_api_key: Key = SecretStr("")
    # Ours: what sends a card to a person however it scores: poor pictures, other papers and what was hardly read; with `all`, small text
    # and contradictions too.
    bridge_card_gate: Literal["off", "pictures", "all"] = "pictures"
    # Ours: seconds that the inference server's GPU may take for a document, its time in the server's queue included.
    bridge_card_gpu_seconds: Limit = 60.0
    # Ours: seconds that its CPU may take for one after that; or the server, whatever it has, where no GPU is to be there.
    bridge_card_cpu_seconds: Limit = 300.0
    # Ours: seconds that Tesseract may take for one after that.
    bridge_card_tesseract_seconds: Limit = 120.0
    # Ours: seconds between two looks at the cases that could not be handed over.
    bridge_escalation_seconds: Annotated[float, Field(gt=0)] = 30.0

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU is to be there, and the container is not kept from it."""
        return self.ocr_gpu_enabled and self.nvidia_visible_devices.strip().lower() not in {"none", "void"}

    @property
    def served(self) -> bool:
        """Whether this bridge serves the card platform."""
        return bool(self.cf_r2_bucket_name)


def load_card_worker() -> CardWorkerSettings:
    """Read the environment. Raises `ConfigurationError`, naming each variable."""
    try:
        settings = CardWorkerSettings()
    except ValidationError as error:
        raise ConfigurationError("; ".join(_problem(problem["loc"], problem["msg"]) for problem in error.errors())) from error
    if settings.served and not settings.has_gpu and not settings.ocr_gpu_autofallback:
        why = "OCR_GPU_ENABLED is off"
        if settings.ocr_gpu_enabled:
            why = f"NVIDIA_VISIBLE_DEVICES is {settings.nvidia_visible_devices}: there is no GPU (unset it where another machine has it)"
        raise ConfigurationError(f"{why}, and OCR_GPU_AUTOFALLBACK is off: nothing may read documents; set one of them to true")
    if settings.served and not settings.cf_r2_endpoint:
        raise ConfigurationError("CF_R2_ENDPOINT is not set; set it to the address of the store that CF_R2_BUCKET_NAME lies in")
    if settings.served and urlsplit(settings.cf_r2_endpoint).path.strip("/") == settings.cf_r2_bucket_name:
        raise ConfigurationError("CF_R2_ENDPOINT ends in the bucket, which CF_R2_BUCKET_NAME names; leave it out of the address")
    return settings


def implied_settings(environment: Mapping[str, str]) -> Mapping[str, str]:
    """What the worker's variables say about settings of ours, by their names. `environment`: names in upper case."""
    if not environment.get("CF_R2_BUCKET_NAME"):
        return {}
    lists = _lists(environment)
    found = {
        "redis_url": _redis_url(environment),
        "redis_queues": ",".join(lists),
        "redis_keys": json.dumps(lists),
        "redis_adopt_seconds": str(_number(environment, "OCR_GPU_STUCK_TIMEOUT", 300_000) / 1000),
        "redis_look_seconds": str(_number(environment, "OCR_GPU_REAPER_INTERVAL", 60_000) / 1000),
        "redis_lock_seconds": str(_number(environment, "OCR_GPU_LOCK_TTL", 600)),
        "results_queue": environment.get("OCR_GPU_PUBLISH_CHANNEL") or f"{_PREFIX}:results",
        "concurrency": str(_count(environment, "OCR_GPU_CONCURRENCY", 2)),
        "max_attempts": str(_count(environment, "OCR_GPU_MAX_RETRIES", 3)),
        # Documents are taken as soon as they come: a longer interval would hold up a stop alone.
        "poll_seconds": str(min(_number(environment, "OCR_GPU_POLL_INTERVAL", 1000) / 1000, MOST_POLL_SECONDS)),
    }
    if environment.get("DATABASE_URL"):
        found["database"] = environment["DATABASE_URL"]
    return found


def _lists(environment: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
    """The GPU's list first, then the CPU's, and their keys: one server reads both. The GPU's may be the CPU's, which the API fills."""
    gpu, cpu = environment.get("OCR_GPU_QUEUE_KEY") or f"{_PREFIX}:queue", f"{_CPU}:queue"
    if gpu == cpu:
        found = {cpu: {**_cpu_keys(), **_gpu_keys(environment)}}
    else:
        found = {gpu: {**_gpu_keys(environment), "twin": cpu}, cpu: {**_cpu_keys(), "twin": gpu}}
    _check_apart(found, environment)
    return found


def _check_apart(lists: Mapping[str, Mapping[str, str]], environment: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` where one key is to be two things: Redis keeps one, and what lies in it would be taken for the other."""
    beside = [keys.get(name) or f"{queue}:{name}" for queue, keys in lists.items() for name in _BESIDE]
    used = Counter([*lists, *beside, *_SHARED_KEYS.values(), *keys_of(ESCALATIONS)])
    for name in ("OCR_GPU_QUEUE_KEY", "OCR_GPU_PROCESSING_KEY", "OCR_GPU_ATTEMPTS_KEY"):
        key = environment.get(name, "")
        if name == "OCR_GPU_QUEUE_KEY" and ("," in key or key != key.strip()):
            raise ConfigurationError(f"{name}: {key!r} has a comma, or begins or ends with a space; set it to a key without")
        if used[key] > 1 or key.startswith(_SHARED_KEYS["locks"]):
            raise ConfigurationError(
                f"{name}: {key!r} is the key of something else too; set it to one of its own, or unset it for the default"
            )


def _gpu_keys(environment: Mapping[str, str]) -> Mapping[str, str]:
    return {
        "processing": environment.get("OCR_GPU_PROCESSING_KEY") or f"{_PREFIX}:processing",
        "deliveries": environment.get("OCR_GPU_ATTEMPTS_KEY") or f"{_PREFIX}:attempts",
        "started": f"{_PREFIX}:processing:timestamps",
        **_SHARED_KEYS,
    }


def _cpu_keys() -> Mapping[str, str]:
    return {
        "processing": f"{_CPU}:processing",
        "deliveries": f"{_CPU}:attempts",
        "delayed": f"{_CPU}:delayed",
        **_SHARED_KEYS,
    }


def _redis_url(environment: Mapping[str, str]) -> str:
    url = (environment.get("REDIS_URL") or "redis://localhost:6379").strip()
    if "://" not in url:
        # As the worker's client reads it: host:port, a port alone, or a socket's path.
        url = f"unix://{url}" if url.startswith("/") else f"redis://{f'localhost:{url}' if url.isdecimal() else url}"
    password = environment.get("REDIS_PASSWORD", "")
    parts = urlsplit(url)
    if parts.password or not password:
        return url
    login, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login.removesuffix(':')}:{quote(password, safe='')}@{host}").geturl()


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    told = environment.get(name) or str(default)
    try:
        found = float(told)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ConfigurationError(f"{name}: {told!r} is no number above 0; set it right, or unset it for the default ({default:g})")
    return found


def _count(environment: Mapping[str, str], name: str, default: int) -> int:
    found = _number(environment, name, default)
    if found != int(found):
        raise ConfigurationError(f"{name}: {environment[name]!r} is no whole number; set it right, or unset it for the default ({default})")
    return int(found)


def _problem(location: tuple[int | str, ...], message: str) -> str:
    return bad_value(str(location[0]).upper() if location else "settings", message)
