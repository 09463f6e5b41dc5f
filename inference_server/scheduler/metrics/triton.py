"""What Triton counts by model, under its names and with its meanings, for Prometheus.

Read from each version's statistics when it is asked for, so that a request costs nothing. Times are in microseconds and, but for those of
the cache, of requests that succeeded. Source: Triton's `docs/user_guide/metrics.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference_server.scheduler.metrics.statistics import Statistics

_REQUESTS: Mapping[str, tuple[str, Callable[[Statistics], float]]] = MappingProxyType(
    {
        "nv_inference_request_success": ("Requests that succeeded.", lambda of: of.success.count),
        "nv_inference_count": ("Rows that were run; answers that were kept are not counted.", lambda of: of.inference_count),
        "nv_inference_exec_count": ("Batches that were run.", lambda of: of.execution_count),
        "nv_inference_request_duration_us": ("Microseconds of requests from end to end.", lambda of: of.success.seconds * 1e6),
        "nv_inference_queue_duration_us": ("Microseconds that requests waited.", lambda of: of.queue.seconds * 1e6),
        "nv_inference_compute_input_duration_us": (
            "Microseconds that requests spent on their inputs.",
            lambda of: of.parts.compute_input.seconds * 1e6,
        ),
        "nv_inference_compute_infer_duration_us": (
            "Microseconds that requests spent in the engine.",
            lambda of: of.parts.compute_infer.seconds * 1e6,
        ),
        "nv_inference_compute_output_duration_us": (
            "Microseconds that requests spent on their outputs.",
            lambda of: of.parts.compute_output.seconds * 1e6,
        ),
    }
)
_CACHE: Mapping[str, tuple[str, Callable[[Statistics], float]]] = MappingProxyType(
    {
        "nv_cache_num_hits_per_model": ("Requests answered by what was kept.", lambda of: of.cache_hit.count),
        "nv_cache_num_misses_per_model": ("Requests for which no answer was kept.", lambda of: of.cache_miss.count),
        "nv_cache_hit_duration_per_model": ("Microseconds of looking up what was kept.", lambda of: of.cache_hit.seconds * 1e6),
        "nv_cache_miss_duration_per_model": ("Microseconds of looking up in vain, and of keeping.", lambda of: of.cache_miss.seconds * 1e6),
    }
)


class Counted(Protocol):
    """One version of a model, as it is counted."""

    statistics: Statistics

    @property
    def pending(self) -> int:
        """Requests that were admitted and whose run has not begun."""

    @property
    def caches(self) -> bool:
        """Whether answers are kept."""


class TritonMetrics(Collector):
    """`served`: the versions that serve now. A version that is loaded anew begins at 0."""

    def __init__(self, served: Callable[[], Iterable[Counted]]) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """The present values."""
        served = list(self._served())
        for name, (text, value) in _REQUESTS.items():
            yield _counter(name, text, (({}, each, value(each.statistics)) for each in served))
        failures = (({"reason": why}, each, count) for each in served for why, count in each.statistics.failures.items())
        yield _counter("nv_inference_request_failure", "Requests that failed.", failures)
        pending = GaugeMetricFamily("nv_inference_pending_request_count", "Requests whose run has not begun.", labels=("model", "version"))
        for each in served:
            pending.add_metric((each.statistics.model, each.statistics.version), each.pending)
        yield pending
        for name, (text, value) in _CACHE.items():
            yield _counter(name, text, (({}, each, value(each.statistics)) for each in served if each.caches))


def _counter(name: str, text: str, values: Iterable[tuple[Mapping[str, str], Counted, float]]) -> Metric:
    metric = Metric(name, text, "counter")
    for labels, each, value in values:
        # Without the `_total` of Prometheus' own counters, as Triton has them.
        metric.add_sample(name, {"model": each.statistics.model, "version": each.statistics.version, **labels}, value)
    return metric
