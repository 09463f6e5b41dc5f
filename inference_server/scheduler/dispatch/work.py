"""A request that was admitted, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field

from inference_server.engine.port import Tensor, Tensors
from inference_server.scheduler.port import Device
from inference_server.scheduler.spans import Span

Bucket = Hashable


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One execution of an engine that succeeded."""

    # Rows of its batch.
    rows: int
    # Seconds of joining the inputs, of computing, and of splitting the outputs.
    input_seconds: float
    infer_seconds: float
    output_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What became of one request that was run."""

    outputs: dict[str, Tensor]
    # As engine:precision.
    engine: str
    # `time.monotonic()` at which its batch began, and seconds computed.
    started: float
    compute_seconds: float
    # The execution that it was part of.
    run: Run
    # Why the CPU computed it in the place of the model's GPU; empty when it did not.
    fallback: str = ""


@dataclass(kw_only=True, slots=True, eq=False)
class Work:
    """One admitted request, from its admission until its memory is free again."""

    inputs: Tensors
    # Outputs wanted; empty for all.
    outputs: tuple[str, ...]
    # Rows of the batch that it takes; 1 for a model without batches.
    rows: int
    # Bytes of its inputs.
    size: int
    # Requests of one bucket may share a batch.
    bucket: Bucket
    # Priority, lower first.
    level: int
    client: str
    # `time.monotonic()` after which it must not be run; None for never.
    deadline: float | None
    # `time.monotonic()` of its admission.
    admitted: float
    # Settled once, by whoever comes first: the run, the deadline or the caller's cancellation.
    future: asyncio.Future[Answer]
    # Cancelled when the request is settled.
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    # The span of its request; None when it is not traced.
    trace: Span | None = None
    # The devices that alone may run it; None for any.
    device: Device | None = None

    @property
    def cost(self) -> int:
        """What it takes of its client's share: bytes, for a wide tile is more work than a narrow one."""
        return max(1, self.size)
