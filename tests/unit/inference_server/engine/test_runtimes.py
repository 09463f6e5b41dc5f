"""Which engines a GPU has, on a machine whose driver, bindings and runtimes are told by the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_server.engine import devices, runtimes
from inference_server.engine.devices import Device
from inference_server.errors import ConfigurationError, DeviceFailed
from tests.support.gpu.fake_device import FakeDevice
from tests.support.gpu.fake_tensorrt import VERSION, fake_tensorrt

ALL = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


class _Device(FakeDevice):
    def __init__(self, number: int) -> None:
        super().__init__(total=1000)
        self.number = number

    def compute_capability(self) -> str:
        return "9.0"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Everything is there."""
    monkeypatch.setattr(devices, "gpus", lambda: (Device(id="cuda:0", name="NVIDIA H100"), Device(id="cuda:1", name="NVIDIA H100")))
    monkeypatch.setattr(runtimes, "installed_providers", lambda: ALL)
    monkeypatch.setattr(runtimes, "load_libraries", lambda: None)
    monkeypatch.setattr(runtimes, "CudaDevice", _Device)
    monkeypatch.setattr(runtimes, "bindings", lambda: fake_tensorrt(FakeDevice()))
    return monkeypatch


def _candidates(**options: Any) -> list[str]:
    found = runtimes.discover(device="cuda:1", **options)
    return [f"{loader.name}:{precision}" for loader in found.candidates for precision in loader.precisions]


def test_a_gpu_has_cuda_first_and_tensorrt_in_both_ways(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [f"{name}:{precision}" for name in ("onnxruntime-tensorrt", "tensorrt") for precision in ("float32", "float16", "bfloat16")]
    assert ["onnxruntime-cuda:float32", *names] == _candidates(engine_cache=tmp_path)
    found = runtimes.discover(device="cuda:1", engine_cache=tmp_path, precisions=("float16",))
    assert found.ahead
    assert [False, True, True] == [found.ahead.needed(name) for name in ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")]
    assert (["tensorrt:float16"], ["onnxruntime-tensorrt:float16"], ["tensorrt:bfloat16"], []) == tuple(
        found.ahead.wanted(pin) for pin in ("auto", "onnxruntime-tensorrt", "tensorrt:bfloat16", "onnxruntime-cuda")
    )
    assert found.memory
    assert (1000, 1000) == found.memory()
    assert ("NVIDIA H100", VERSION) == (found.machine["gpu"], found.candidates[-1].version)


def test_without_a_folder_or_without_its_libraries_there_is_no_tensorrt(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent() -> None:
        raise ConfigurationError("TensorRT is not installed")

    assert ["onnxruntime-cuda:float32"] == _candidates()
    machine.setattr(runtimes, "bindings", absent)
    assert ["onnxruntime-cuda:float32"] == _candidates(engine_cache=tmp_path)


def test_the_arena_of_a_session_is_bounded(machine: pytest.MonkeyPatch) -> None:
    limits = []
    for most in (0, 500):
        (cuda,) = runtimes.discover(device="cuda:0", most_bytes=most).candidates
        limits.append(cuda._provider.options["float32"]["gpu_mem_limit"])  # type: ignore[attr-defined]
    assert ["900", "500"] == limits


def test_what_a_machine_lacks_is_told(machine: pytest.MonkeyPatch) -> None:
    def old_driver(number: int) -> None:
        raise DeviceFailed("the GPU failed: CUDA driver version is insufficient", cause="device_lost")

    with pytest.raises(ConfigurationError, match="there is no device cuda:7; there are: cpu, cuda:0, cuda:1"):
        runtimes.discover(device="cuda:7")
    machine.setattr(runtimes, "CudaDevice", old_driver)
    with pytest.raises(ConfigurationError, match=r"cuda:0 cannot be used: .* is insufficient; NVIDIA's driver must be one for CUDA 13"):
        runtimes.discover(device="cuda:0")
    machine.setattr(runtimes, "installed_providers", lambda: ALL[2:])
    with pytest.raises(ConfigurationError, match=r"has no CUDA; install the extra `gpu`"):
        runtimes.discover(device="cuda:0")
