"""Leaves a service alone that does not work."""

from __future__ import annotations

import time
from collections.abc import Callable

from bridge.errors import OverloadError


class Breaker:
    """Opens after so many failures in a row; then lets one call through at a time, until one goes well."""

    def __init__(self, *, name: str, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`name`: of the service, for people. `seconds`: how long it stays open."""
        self._name = name
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    def enter(self) -> None:
        """Ask to make a call. Raises `OverloadError` while it is open."""
        if self._failures < self._most:
            return
        left = self.seconds_left
        if left > 0:
            message = f"{self._name} has failed {self._failures} times in a row; it is asked again in {left:.0f} s"
            raise OverloadError(message, retry_after=left)
        # This call is the trial: others wait for what it tells.
        self._open_until = self._clock() + self._seconds

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self.seconds_left > 0

    @property
    def seconds_left(self) -> float:
        """How long calls are refused yet."""
        return max(0.0, self._open_until - self._clock()) if self._failures >= self._most else 0.0

    def succeeded(self) -> None:
        """A call went well."""
        self._failures = 0

    def failed(self) -> None:
        """A call failed for a reason that lies with the service."""
        self._failures += 1
        if self._failures >= self._most:
            self._open_until = self._clock() + self._seconds
