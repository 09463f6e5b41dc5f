"""How long each model kept a GPU at work, as its engines tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from inference_server.engine.port import Engine
from inference_server.scheduler.dispatch.executor import PlacedEngine

_Key = tuple[str, str, str]


class DeviceTimes(Collector):
    """Sums what the engines of each version tell, those that were replaced included: counters never fall."""

    def __init__(self) -> None:
        self._engines: dict[_Key, list[Engine]] = {}
        # Of engines that serve no more: seconds, and runs of shapes that lay in no optimisation profile.
        self._before: dict[_Key, tuple[float, int]] = {}

    def serves(self, model: str, version: str, placed: Sequence[PlacedEngine]) -> None:
        """These engines serve a version now, and no others."""
        self.gone(model, version)
        for each in placed:
            if each.device != "cpu":
                self._engines.setdefault((model, version, each.device), []).append(each.engine)

    def gone(self, model: str, version: str) -> None:
        """A version serves no more, or others serve it."""
        for key in [key for key in self._engines if key[:2] == (model, version)]:
            self._before[key] = self._total(key)
            del self._engines[key]

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        labels = ("model", "version", "device")
        seconds = CounterMetricFamily("lamina_model_device_seconds", "Seconds that a model kept a GPU at work.", labels=labels)
        outside = CounterMetricFamily(
            "lamina_model_outside_profiles", "Runs of shapes that no optimisation profile holds, on another engine.", labels=labels
        )
        for key in {**self._before, **self._engines}:
            worked, runs = self._total(key)
            seconds.add_metric(key, worked)
            outside.add_metric(key, runs)
        yield seconds
        yield outside

    def _total(self, key: _Key) -> tuple[float, int]:
        seconds, outside = self._before.get(key, (0.0, 0))
        engines = self._engines.get(key, ())
        return (
            seconds + sum(float(getattr(engine, "device_seconds", 0.0)) for engine in engines),
            outside + sum(int(getattr(engine, "outside", 0)) for engine in engines),
        )
