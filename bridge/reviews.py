"""The service where people review what machines are not sure of, over HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from bridge.bounded_calls import TimedHttp, TimedHttps, TimedRequest
from bridge.breaker import Breaker
from bridge.errors import BridgeError, ConfigurationError, OverloadError, PermanentError, TransientError

# What the platform's column holds.
_LONGEST_TICKET = 255
# Of what tells a ticket, in bytes.
_LONGEST_ANSWER = 1024 * 1024
_TRIES = 3
_WAIT_SECONDS = 1.0
_CALL_SECONDS = 30.0
# Of what the service asks us to wait, so much is believed.
_LONGEST_PAUSE = 600.0
# What a service or its proxy answers for all cases alike.
_DOWN = frozenset({408, 502, 503, 504})
_KEY_REFUSED = frozenset({401, 403, 407})
_NOT_THERE = frozenset({301, 302, 303, 307, 308, 404, 405})


class NoAnswerError(OverloadError):
    """A case was sent, and nothing but its connection's end, or that the service is down, came of it."""


class _LaterError(OverloadError):
    """The service asks for fewer calls, or says when it is back: it is not asked again at once."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A case that is sent on would arrive as a question without it, and would be taken for handed over."""

    def redirect_request(self, *_: Any) -> None:
        """None: the redirection is an error."""


class ReviewService:
    """Hands cases over. A case that is handed over twice carries one correlation id."""

    def __init__(self, url: str, *, api_key: str = "", breaker: Breaker | None = None, wait_seconds: float = _WAIT_SECONDS) -> None:
        """`url`: without the path. `wait_seconds`: the bound of the first wait between two tries, doubled with each."""
        self._url = url.rstrip("/")
        self._api_key = api_key
        self.breaker = breaker or Breaker(name="the review service", failures=5, seconds=30.0)
        self._wait = wait_seconds
        # How many cases it has taken.
        self.taken = 0
        # By the monotonic clock: when the service wants to be asked again.
        self._not_before = 0.0
        self._opener = urllib.request.build_opener(_NoRedirects(), TimedHttp(), TimedHttps())

    async def submit(self, case: Mapping[str, Any]) -> str:
        """Hand a case over; returns the id of its ticket.

        Raises `OverloadError` while the service is busy or left alone, `NoAnswerError` when it is down; `TransientError` when it failed
        over the case; `ConfigurationError` when it does not know us, or is another; `PermanentError` when it refuses the case.
        """
        failed: BridgeError | None = None
        for attempt in range(1, _TRIES + 1):
            try:
                self._enter()
            except OverloadError as error:
                # What the case itself came to says more than that it was enough.
                raise failed or error from error
            try:
                answer = await asyncio.to_thread(self._post, case)
            except (ConfigurationError, PermanentError):
                self.breaker.succeeded()
                raise
            except (OverloadError, TransientError) as error:
                failed = error
                self.breaker.failed()
                if isinstance(error, _LaterError):
                    self._not_before = max(self._not_before, time.monotonic() + error.retry_after)
                    raise
                if attempt == _TRIES:
                    raise
                await asyncio.sleep(random.uniform(0.5, 1.0) * self._wait * 2 ** (attempt - 1))  # noqa: S311
                continue
            self.breaker.succeeded()
            self.taken += 1
            return _ticket(answer)
        raise AssertionError("the last try returns or raises")

    @property
    def seconds_left_alone(self) -> float:
        """How long the service is not asked yet."""
        return max(0.0, self._not_before - time.monotonic(), self.breaker.seconds_left)

    def _enter(self) -> None:
        left = self._not_before - time.monotonic()
        if left > 0:
            raise OverloadError(f"the review service asked to be left alone for {left:.0f} s more", retry_after=left)
        self.breaker.enter()

    def _post(self, case: Mapping[str, Any]) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        content = json.dumps(case).encode()
        request = TimedRequest(f"{self._url}/internal/reviews", content, headers, method="POST", seconds=_CALL_SECONDS)
        try:
            with request.within_its_time(), self._opener.open(request, timeout=_CALL_SECONDS) as reply:
                answer = _whole(reply)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NoAnswerError(f"the review service gave no answer ({type(error).__name__})", retry_after=0.0) from error
        try:
            told = json.loads(answer or b"{}")
        except (ValueError, RecursionError) as error:
            raise TransientError("the review service's answer is no JSON") from error
        return told if isinstance(told, dict) else {}


def _whole(reply: http.client.HTTPResponse) -> bytes:
    """An answer, which may not be long. Raises `TransientError`, `http.client.IncompleteRead`."""
    length, found = reply.length, reply.read(_LONGEST_ANSWER + 1)
    if len(found) > _LONGEST_ANSWER:
        raise TransientError(f"the review service's answer has more than {_LONGEST_ANSWER} bytes")
    if length and len(found) < length:  # of a part `read` does not tell that the rest never came
        raise http.client.IncompleteRead(found, length - len(found))
    return found


def _ticket(answer: Mapping[str, Any]) -> str:
    """The id of a ticket, of characters that the platform's column takes."""
    told = str(answer.get("taskId") or answer.get("ticketId") or f"BULI2-{time.time_ns() // 1_000_000}")
    return told.encode(errors="replace").decode().replace("\x00", "\ufffd")[:_LONGEST_TICKET]


def _refusal(error: urllib.error.HTTPError) -> BridgeError:
    """What an answer means that is no success."""
    told = f"({error.code})"
    if error.code == 429 or error.code in _DOWN:
        pause = _seconds(error.headers.get("Retry-After"))
        kind = _LaterError if pause or error.code == 429 else NoAnswerError
        return kind(f"the review service is {'busy' if error.code == 429 else 'down'} {told}", retry_after=pause)
    if error.code >= 500:
        return TransientError(f"the review service failed {told}")
    if error.code in _KEY_REFUSED:
        return ConfigurationError(f"the review service does not take our key {told}; set BULI2_API_KEY to one that it knows")
    if error.code in _NOT_THERE:
        return ConfigurationError(f"the review service has no /internal/reviews {told}; set BULI2_API_URL to its address, without a path")
    return PermanentError(f"the review service refuses the case {told}")


def _seconds(told: str | None) -> float:
    """What `Retry-After` asks for, as seconds or as a date; 0 where it asks for nothing."""
    if not told:
        return 0.0
    try:
        found = float(told) if told.isascii() and told.isdigit() else parsedate_to_datetime(told).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(found, 0.0), _LONGEST_PAUSE)
