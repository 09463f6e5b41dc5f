"""What the operator decides of scheduling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inference_server.engine.selection.selector import AUTO
from inference_server.scheduler.dispatch.admission import QueueLimits


@dataclass(frozen=True, kw_only=True)
class SchedulingOptions:
    """How models are loaded and shared, over all models."""

    # What may wait and run.
    limits: QueueLimits = field(default_factory=QueueLimits)
    # `auto`, or the engine that serves models which name none of their own.
    engine: str = AUTO
    # Rows, for models that take batches and whose owner gives no size.
    default_max_batch_size: int = 32
    # Shares of clients by name; 1 for those that it does not name.
    client_weights: Mapping[str, float] = field(default_factory=dict)
    # Bytes that all loaded models may take; 0 for most of what the machine has.
    model_memory_bytes: int = 0
    # The same of each GPU; 0 for most of what it has.
    gpu_memory_bytes: int = 0
    # Bytes of answers that are kept for models with response_cache; 0 refuses such models.
    response_cache_bytes: int = 64 * 2**20
    # Whether the CPU may answer a request when the model's GPU cannot.
    cpu_fallback: bool = False
