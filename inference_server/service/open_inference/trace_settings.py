"""Triton's trace settings, which say what requests are traced: of all models, and of one where it has its own.

Source: Triton's `docs/protocol/extension_trace.md` and `docs/user_guide/trace.md`, its mode `opentelemetry`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inference_server.errors import InvalidInput, NotEnabled, NotOffered
from inference_server.scheduler.spans import TraceParent

_LEVEL, _RATE, _COUNT, _MODE = "trace_level", "trace_rate", "trace_count", "trace_mode"
_KNOWN = (_LEVEL, _RATE, _COUNT)
_OFF, _TIMESTAMPS = 0, 1
_LEVELS = {"OFF": _OFF, "TIMESTAMPS": _TIMESTAMPS}
# What Triton has and this server has not, and what there is instead.
_NOT_OFFERED = {
    "trace_file": "no trace files are written; spans are sent to INFERENCE_OTLP_ENDPOINT",
    "log_frequency": "no trace files are written; spans are sent to INFERENCE_OTLP_ENDPOINT as they end",
    _MODE: "it is OPENTELEMETRY and stays so",
}
_RANGES = {_RATE: (0, 2**32 - 1), _COUNT: (-1, 2**31 - 1)}
_EVERYONE = ""


@dataclass(kw_only=True, slots=True)
class _Sampling:
    """What holds for one model, or for all that have no settings of their own."""

    level: int
    # Every so many requests one is traced; 0 for only those whose callers trace them.
    rate: int
    # Traces that are left; below 0 for no end of them.
    count: int
    # Requests since the settings were changed.
    seen: int = 0

    def next(self) -> bool:
        """Whether another request is traced that no caller traces."""
        if not self.rate or not self.count:
            return False
        self.seen += 1
        if self.seen % self.rate:
            return False
        if self.count > 0:
            self.count -= 1
        return True


class TraceSettings:
    """From any thread. `available`: whether traces are sent anywhere; if not, they are off and stay so."""

    def __init__(self, *, available: bool, rate: int = 1, count: int = -1) -> None:
        """`rate` and `count` hold until they are changed, and again when a change is withdrawn."""
        self._available = available
        self._default = {_LEVEL: _TIMESTAMPS if available else _OFF, _RATE: rate, _COUNT: count}
        # What was set, by model; "" for all.
        self._set: dict[str, dict[str, int]] = {_EVERYONE: {}}
        self._samplings = {_EVERYONE: self._sampling(_EVERYONE)}
        self._lock = threading.Lock()

    def samples(self, model: str, parent: TraceParent | None) -> bool:
        """Whether the next request of a model is traced; `parent`: its caller's trace, which decides as Triton lets it."""
        with self._lock:
            sampling = self._samplings.get(model) or self._samplings[_EVERYONE]
            if not sampling.level:
                return False
            return parent.sampled if parent is not None else sampling.next()

    def told(self, model: str = _EVERYONE) -> dict[str, str]:
        """What holds for a model, or for all, as the protocol tells it."""
        with self._lock:
            sampling = self._samplings.get(model) or self._samplings[_EVERYONE]
            level = "TIMESTAMPS" if sampling.level else "OFF"
            return {_LEVEL: level, _RATE: str(sampling.rate), _COUNT: str(sampling.count), _MODE: "OPENTELEMETRY"}

    def change(self, model: str, changes: Mapping[str, Sequence[str]]) -> None:
        """Set what is sent, of one model or of all; no value withdraws what was set.

        What a model has not set follows what is set for all. Raises `InvalidInput`, `NotOffered`, and `NotEnabled` where traces are sent
        nowhere.
        """
        parsed = {name: _parsed(name, list(values)) for name, values in changes.items()}
        if not self._available and any(value not in (None, _OFF) or name != _LEVEL for name, value in parsed.items()):
            raise NotEnabled(
                f"{', '.join(sorted(parsed))} cannot be set: traces are sent nowhere. Start the server with INFERENCE_OTLP_ENDPOINT."
            )
        with self._lock:
            for scope, values in self._set.items():
                if _COUNT in values:  # what is left of it goes on to count
                    values[_COUNT] = self._samplings[scope].count
            own = {**self._set.get(model, {}), **parsed}
            self._set[model] = {name: value for name, value in own.items() if value is not None}
            self._set = {scope: values for scope, values in self._set.items() if values or scope == _EVERYONE}
            touched = self._set if model == _EVERYONE else {model} & self._set.keys()
            kept = {scope: sampling for scope, sampling in self._samplings.items() if scope in self._set and scope not in touched}
            self._samplings = {**kept, **{scope: self._sampling(scope) for scope in touched}}

    def _sampling(self, scope: str) -> _Sampling:
        values = {**self._default, **self._set[_EVERYONE], **self._set[scope]}
        return _Sampling(level=values[_LEVEL], rate=values[_RATE], count=values[_COUNT])


def _parsed(name: str, values: list[str]) -> int | None:
    """The value of one setting; None to withdraw it."""
    if name in _NOT_OFFERED:
        raise NotOffered(f"the trace setting {name} cannot be changed: {_NOT_OFFERED[name]}.")
    if name not in _KNOWN:
        raise InvalidInput(f"there is no trace setting {name}; those that can be changed are {', '.join(_KNOWN)}.")
    if not values:
        return None
    if len(values) > 1:
        raise InvalidInput(f"the trace setting {name} takes one value; {len(values)} were sent.")
    return _level(values[0]) if name == _LEVEL else _number(name, values[0])


def _level(value: str) -> int:
    if value == "TENSORS":
        raise NotOffered(f"{_LEVEL} cannot be TENSORS: what tensors hold is never traced. Send OFF or TIMESTAMPS.")
    if value not in _LEVELS:
        raise InvalidInput(f"{_LEVEL} can be {' or '.join(_LEVELS)}; {value[:40]!r} was sent.")
    return _LEVELS[value]


def _number(name: str, value: str) -> int:
    least, most = _RANGES[name]
    text = value.strip()
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise InvalidInput(f"{name} takes a whole number from {least} to {most}; {value[:40]!r} was sent.")
    return int(text)
