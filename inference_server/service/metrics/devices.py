"""Memory and utilisation of the GPUs, for Prometheus; read when someone asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference_server.engine.gpu_monitor import GpuReading


class DeviceCollector(Collector):
    """`readings`: a look at each GPU now."""

    def __init__(self, readings: Callable[[], Sequence[GpuReading]]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        labels = ("device", "name")
        used = GaugeMetricFamily("lamina_device_memory_used_bytes", "Bytes of a GPU's memory in use, of all processes.", labels=labels)
        total = GaugeMetricFamily("lamina_device_memory_bytes", "Bytes of a GPU's memory.", labels=labels)
        busy = GaugeMetricFamily("lamina_device_utilisation_ratio", "Share of the last moments in which a GPU computed.", labels=labels)
        for reading in self._readings():
            names = (reading.device, reading.name)
            used.add_metric(names, reading.memory_used)
            total.add_metric(names, reading.memory_total)
            busy.add_metric(names, reading.utilisation)
        yield from (used, total, busy)
