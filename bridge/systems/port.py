"""What every system that the bridge serves fulfils."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bridge.job import Delivery, Job, Outcome, Units, Write
from bridge.ledger.port import Claim


class Context(Protocol):
    """What a handler may do while it works; given by the worker."""

    @property
    def claim(self) -> Claim:
        """The claim under which the work is done; its fence names the output folder."""

    async def checkpoint(self, saved: Mapping[str, Any], writes: Sequence[Write] = ()) -> None:
        """Save what a later try can go on from, and make the writes that belong to it: both or neither."""

    def report(self, progress: float, stage: str, units: Units | None = None) -> None:
        """Tell how far the work is (0 to 1), and what is counted; written within a second."""


class Handler(Protocol):
    """One system: its messages and its work. It knows no transport."""

    @property
    def system(self) -> str:
        """Its name: wsi, documents, labs."""

    def parse(self, delivery: Delivery) -> Job:
        """Read a message. Raises `PoisonError`, saying what was expected."""

    async def handle(self, job: Job, context: Context) -> Outcome:
        """Do the work. Raises `TransientError`, `OverloadError`, `NotYetError`, `PermanentError`, `ConfigurationError`."""

    def failure(self, job: Job, reason: str) -> Outcome:
        """The outcome of a job that is given up."""
