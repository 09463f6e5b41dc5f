"""The service where people review what machines are not sure of, over HTTP."""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import structlog

from bridge.breaker import Breaker
from bridge.errors import OverloadError, PermanentError, TransientError

_log = structlog.get_logger()
_TRIES = 3
_WAIT_SECONDS = 1.0
_CALL_SECONDS = 30.0


class ReviewService:
    """Hands cases over. A case that is handed over twice carries one correlation id."""

    def __init__(self, url: str, *, api_key: str = "", breaker: Breaker | None = None, wait_seconds: float = _WAIT_SECONDS) -> None:
        """`url`: without the path. `wait_seconds`: the bound of the first wait between two tries, doubled with each."""
        self._url = url.rstrip("/")
        self._api_key = api_key
        self.breaker = breaker or Breaker(name="the review service", failures=5, seconds=30.0)
        self._wait = wait_seconds

    async def submit(self, case: Mapping[str, Any]) -> str:
        """Hand a case over; returns the id of its ticket. Raises `TransientError`, `OverloadError`, `PermanentError`."""
        for attempt in range(1, _TRIES + 1):
            self.breaker.enter()
            try:
                answer = await asyncio.to_thread(self._post, case)
            except TransientError:
                self.breaker.failed()
                if attempt == _TRIES:
                    raise
                await asyncio.sleep(random.uniform(0.5, 1.0) * self._wait * 2 ** (attempt - 1))  # noqa: S311
                continue
            self.breaker.succeeded()
            return str(answer.get("taskId") or answer.get("ticketId") or f"BULI2-{time.time_ns() // 1_000_000}")
        raise AssertionError("the last try returns or raises")

    def _post(self, case: Mapping[str, Any]) -> Mapping[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(  # noqa: S310  (the settings name it)
            f"{self._url}/internal/reviews", json.dumps(case, ensure_ascii=False).encode(), headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=_CALL_SECONDS) as reply:  # noqa: S310
                content = json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            if error.code == 429:
                raise OverloadError("the review service is busy (429)") from error
            if error.code >= 500:
                raise TransientError(f"the review service failed ({error.code})") from error
            raise PermanentError(f"the review service refuses the case ({error.code}); check BULI2_API_URL and BULI2_API_KEY") from error
        except (OSError, ValueError) as error:
            raise TransientError(f"the review service gave no answer ({type(error).__name__})") from error
        return content if isinstance(content, dict) else {}
