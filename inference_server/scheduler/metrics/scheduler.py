"""What the scheduler counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from inference_server.errors import DeadlineExceeded, InferenceError, InvalidTensor, Overloaded, Unavailable
from inference_server.scheduler.dispatch.admission import Admission
from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.loading.memory import MemoryBudget
from inference_server.scheduler.metrics.device_times import DeviceTimes
from inference_server.scheduler.response_cache import ResponseCache

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# How a request can end.
OUTCOMES = ("success", "failed", "expired", "cancelled", "overloaded", "invalid", "unavailable")


class SchedulerMetrics:
    """The scheduler's metrics in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        model = ("model", "version")
        self.requests = Counter("lamina_requests", "Requests by how they ended.", (*model, "outcome"), registry=registry)
        self.queue_seconds = Histogram("lamina_queue_seconds", "Seconds from admission to run.", model, buckets=_SECONDS, registry=registry)
        self.compute_seconds = Histogram("lamina_compute_seconds", "Seconds of one run.", model, buckets=_SECONDS, registry=registry)
        self.batch_rows = Histogram("lamina_batch_rows", "Rows of one run.", model, buckets=_ROWS, registry=registry)
        self.waiting = Gauge("lamina_waiting_requests", "Requests that wait for an instance.", model, registry=registry)
        self.engines = Gauge(
            "lamina_model_engine_info",
            "1 for the engine that serves a model.",
            (*model, "engine", "precision", "device"),
            registry=registry,
        )
        self.fallbacks = Counter(
            "lamina_fallbacks", "Requests that the CPU answered in the place of a GPU, by why.", (*model, "cause"), registry=registry
        )
        self._device_times = DeviceTimes()
        registry.register(self._device_times)
        self._served: set[tuple[str, str, str, str, str]] = set()
        self.states = Gauge("lamina_model_ready", "1 when a model serves, else 0.", model, registry=registry)

    def serves(self, model: str, version: str, placed: Sequence[PlacedEngine]) -> None:
        """Tell the engine, precision and device of each instance that serves, and forget those of the one before."""
        self._forget_engines(model, version)
        for each in placed:
            labels = (model, version, each.engine.name, each.engine.precision, each.device)
            self.engines.labels(*labels).set(1)
            self._served.add(labels)
        self._device_times.serves(model, version, placed)

    def gone(self, model: str, version: str) -> None:
        """A version serves no more."""
        self._forget_engines(model, version)
        self._device_times.gone(model, version)
        self.states.labels(model, version).set(0)

    def _forget_engines(self, model: str, version: str) -> None:
        for labels in {labels for labels in self._served if labels[:2] == (model, version)}:
            self.engines.remove(*labels)
            self._served.discard(labels)


def tell_of_room(
    registry: CollectorRegistry, *, admission: Admission, cache: ResponseCache, memory: MemoryBudget, gpu_memory: Mapping[str, MemoryBudget]
) -> None:
    """Have a registry tell how much is taken of what there is for all models together. `gpu_memory`: by device."""

    def told(name: str, what: str, count: Callable[[], float]) -> None:
        Gauge(name, what, registry=registry).set_function(count)

    told("lamina_admitted_requests", "Requests that wait or run, of all models.", lambda: admission.requests)
    told("lamina_admitted_bytes", "Bytes of their inputs.", lambda: admission.bytes)
    told("lamina_response_cache_bytes", "Bytes of answers that are kept, of all models.", lambda: cache.bytes)
    told("lamina_model_memory_bytes", "Bytes that loaded models take of their budget.", lambda: memory.used_bytes)
    takes = "Bytes of a GPU that loaded models take of their budget."
    of_gpus = Gauge("lamina_gpu_model_memory_bytes", takes, ("device",), registry=registry)
    for device, budget in gpu_memory.items():
        of_gpus.labels(device).set_function(partial(getattr, budget, "used_bytes"))


class ModelMetrics:
    """The metrics of one version of a model, looked up once."""

    def __init__(self, metrics: SchedulerMetrics, model: str, version: str) -> None:
        self._model = (model, version)
        self._fallbacks = metrics.fallbacks
        self._requests = {outcome: metrics.requests.labels(model, version, outcome) for outcome in OUTCOMES}
        self.queue_seconds = metrics.queue_seconds.labels(model, version)
        self.compute_seconds = metrics.compute_seconds.labels(model, version)
        self.batch_rows = metrics.batch_rows.labels(model, version)
        self.waiting = metrics.waiting.labels(model, version)

    def fell_back(self, cause: str) -> None:
        """Count a request that the CPU answered in the place of a GPU."""
        self._fallbacks.labels(*self._model, cause).inc()

    def ended(self, outcome: str) -> None:
        """Count a request by how it ended."""
        self._requests[outcome].inc()


def outcome_of(error: InferenceError) -> str:
    """How a request ended that an error ended."""
    names = {InvalidTensor: "invalid", Overloaded: "overloaded", DeadlineExceeded: "expired", Unavailable: "unavailable"}
    return next((name for kind, name in names.items() if isinstance(error, kind)), "failed")
