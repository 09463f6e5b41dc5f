"""What Prometheus is told of the GPUs and of what models made of them."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from inference_server.engine import gpu_monitor
from inference_server.engine.gpu_monitor import GpuMonitor
from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.metrics.device_times import DeviceTimes
from inference_server.service.metrics.devices import DeviceCollector


class Failure(Exception):
    """Of the library."""


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """NVIDIA's library with one GPU, by the names of the package nvidia-ml-py."""
    fake = SimpleNamespace(
        NVMLError=Failure,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByPciBusId=lambda address: address,
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=3, total=8),
        nvmlDeviceGetName=lambda handle: "NVIDIA H100",
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=40, memory=5),
    )
    monkeypatch.setitem(__import__("sys").modules, "pynvml", fake)
    monkeypatch.setattr(gpu_monitor, "_pci_address", lambda number: b"0000:01:00.0")
    return fake


def test_memory_and_utilisation_of_the_servers_gpu_are_told(library: Any) -> None:
    registry = CollectorRegistry()
    monitor = GpuMonitor(("cuda:0",))
    registry.register(DeviceCollector(monitor.readings))
    labels = {"device": "cuda:0", "name": "NVIDIA H100"}
    names = ("lamina_device_memory_used_bytes", "lamina_device_memory_bytes", "lamina_device_utilisation_ratio")
    assert [3, 8, 0.4] == [registry.get_sample_value(name, labels) for name in names]


def test_a_gpu_that_cannot_be_read_is_left_out(library: Any) -> None:
    def fail(handle: bytes) -> None:
        raise Failure("GPU is lost")

    library.nvmlDeviceGetMemoryInfo = fail
    assert () == GpuMonitor(("cuda:0",)).readings()


def test_a_server_on_the_cpu_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert () == GpuMonitor(("cpu",)).readings()


def _placed(seconds: float, *, device: str = "cuda:0", outside: int = 0) -> PlacedEngine:
    engine: Any = SimpleNamespace(device_seconds=seconds, outside=outside)
    return PlacedEngine(engine=engine, device=device)


def test_the_time_that_models_kept_a_gpu_at_work_is_summed_and_never_falls() -> None:
    registry, times = CollectorRegistry(), DeviceTimes()
    registry.register(times)
    labels = {"model": "net", "version": "1", "device": "cuda:0"}

    def told() -> tuple[float | None, float | None]:
        names = ("lamina_model_device_seconds_total", "lamina_model_outside_profiles_total")
        return tuple(registry.get_sample_value(name, labels) for name in names)  # type: ignore[return-value]

    times.serves("net", "1", [_placed(1.5, outside=2), _placed(2.0), _placed(9.0, device="cpu")])
    assert (3.5, 2) == told()
    times.serves("net", "1", [_placed(0.25)])
    gc.collect()
    assert (3.75, 2) == told()
    times.gone("net", "1")
    assert (3.75, 2) == told()
