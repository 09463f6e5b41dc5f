"""What tasks and services see of the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from inference_server.engine.port import Tensor, Tensors, TensorSpec
from inference_server.errors import DeviceMissing
from inference_server.models.values import Batching
from inference_server.scheduler.spans import Span


class Device(StrEnum):
    """A kind of device."""

    GPU = "gpu"
    CPU = "cpu"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """On whose behalf a model is run, and how urgently."""

    # Who is asking, for fairness and logs; empty when unknown.
    client: str = ""
    # Lower goes first; 0 takes the model's default, as in Triton.
    priority: int = 0
    # `time.monotonic()` after which nobody wants the answer; None for never.
    deadline: float | None = None
    # The span of the request that it is made for; None when that is not traced.
    trace: Span | None = None
    # The devices that alone may run it; None for the model's own, and what the operator allows in their place.
    device: Device | None = None


@dataclass(frozen=True, kw_only=True)
class InferenceRequest:
    """One call of one model."""

    model: str
    # Version as its folder is named; empty for the newest that serves.
    version: str = ""
    # Each tensor with its batch dimension first, where the model has one.
    inputs: Tensors
    # Outputs wanted; empty for all.
    outputs: tuple[str, ...] = ()
    caller: Caller = field(default_factory=Caller)


@dataclass(frozen=True, kw_only=True)
class InferenceResponse:
    """What a model answered."""

    model: str
    version: str
    outputs: Mapping[str, Tensor]
    # The engine that ran it, as engine:precision.
    engine: str
    # Seconds waited in the queue, and seconds computed.
    queue_seconds: float
    compute_seconds: float
    # Why the CPU answered in the place of the model's GPU; empty when it did not.
    fallback: str = ""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model that serves."""

    name: str
    version: str
    # The engine that serves it, as engine:precision.
    engine: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    # Most rows of one batch; 0 when the model takes no batch dimension.
    max_batch_size: int
    # SHA-256 of the model file, in lower-case hexadecimal.
    sha256: str
    # Free-form `parameters` of config.pbtxt.
    parameters: Mapping[str, str]
    # Runs that go on at the same time; of an ensemble those of all its steps.
    instances: int = 1
    # How its requests become batches, and which of them go first.
    batching: Batching = field(default_factory=Batching)
    # Kinds of devices that do not run it, and why.
    without: Mapping[Device, str] = field(default_factory=dict)

    def check_device(self, device: Device | None) -> None:
        """Raises `DeviceMissing` where the only devices that a caller allows do not run it."""
        if device is not None and device in self.without:
            raise DeviceMissing(f"no {device.upper()} engine for model {self.name}: {self.without[device]}")


class Inference(Protocol):
    """Runs models. Tasks know nothing else of what lies below them."""

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Run one request, batched with others of its shape.

        Cancelling the awaiting task takes the request out of the queue and harms nobody else.
        Raises `NotFound`, `InvalidTensor`, `Overloaded`, `DeadlineExceeded`, `Unavailable`, `ModelFailed`.
        """

    def facts(self, model: str, version: str = "") -> ModelFacts:
        """What serves under a name. Raises `NotFound`, or `Unavailable` while it loads or after its load failed."""
