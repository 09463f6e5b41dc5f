"""Moments as text, as the programs around us write them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment_text(moment: datetime | None = None) -> str:
    """A moment with its zone, or now, by ISO 8601 in UTC with milliseconds: `2026-03-01T10:11:12.131Z`."""
    return (moment or datetime.now(tz=UTC)).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
