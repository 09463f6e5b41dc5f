"""What the service's errors mean: one table."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import openai

from bridge.errors import BridgeError, ConfigurationError, OverloadError, PermanentError, TransientError
from bridge.llm.sanitised import sanitised

_REFUSED_ACCOUNTS = frozenset({401, 403})
_WORTH_ANOTHER_TRY = frozenset({408, 409})
# Nothing is to be gained by asking again soon.
_QUOTA_SECONDS = 300.0
# Of what the service asks us to wait, so much is believed.
_LONGEST_PAUSE = 600.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What a call failed with."""

    # What is raised when it is not asked again.
    error: BridgeError
    # Whether the same question is worth another try.
    retried: bool = True
    # Whether it speaks against the service, and not against the question or its answer.
    counts: bool = False
    # Seconds that the service wants to be left alone for; None when it does not tell.
    retry_after: float | None = None


def failure_of(error: openai.OpenAIError) -> Failure:
    """The meaning of an error of the client's."""
    if isinstance(error, openai.APITimeoutError):
        return Failure(counts=True, error=TransientError("LLM_TIMEOUT: the language model did not answer in time"))
    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, openai.APIConnectionError):
        # It is down: the job waits for it, which costs no attempt.
        return Failure(counts=True, error=OverloadError("LLM_CONNECTION_ERROR: the language model cannot be reached (OPENAI_BASE_URL)"))
    return Failure(counts=True, error=TransientError(f"LLM_SERVICE_ERROR: {sanitised(str(error))}"))


def useless(reason: str) -> Failure:
    """An answer that is not of the shape that was asked for."""
    return Failure(error=TransientError(f"SCHEMA_VALIDATION_ERROR: {sanitised(reason)}"))


def _of_status(error: openai.APIStatusError) -> Failure:
    said = sanitised(error.message)
    wait = retry_after(error)
    if error.status_code in _REFUSED_ACCOUNTS:
        return Failure(
            retried=False,
            error=ConfigurationError(f"LLM_AUTH_ERROR: the language model refuses OPENAI_API_KEY ({said}); set one that it takes"),
        )
    if error.status_code == 429:
        if error.code == "insufficient_quota":
            return Failure(
                retried=False,
                error=OverloadError(f"LLM_RATE_LIMIT: the account's quota is used up ({said})", retry_after=_QUOTA_SECONDS),
            )
        return Failure(error=OverloadError(f"LLM_RATE_LIMIT: {said}", retry_after=wait or 1.0), retry_after=wait)
    if error.status_code >= 500 or error.status_code in _WORTH_ANOTHER_TRY:
        text = f"LLM_SERVICE_ERROR: {error.status_code} {said}"
        # A service that is down and says when it is back fails over no question: the job waits. Others may fail over this one, for ever.
        down = error.status_code == 503 and wait
        return Failure(counts=True, error=OverloadError(text, retry_after=down) if down else TransientError(text), retry_after=wait)
    return Failure(retried=False, error=PermanentError(f"LLM_SERVICE_ERROR: {error.status_code} {said}"))


def retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that the answer asks us to wait for, as far as we believe it: `retry-after-ms`, or `Retry-After` as seconds or as a date."""
    told = _told(error)
    return None if told is None else min(max(0.0, told), _LONGEST_PAUSE)


def _told(error: openai.APIStatusError) -> float | None:
    headers = error.response.headers
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return float(milliseconds) / 1000
        if seconds := headers.get("retry-after"):
            try:
                return float(seconds)
            except ValueError:
                return parsedate_to_datetime(seconds).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return None
