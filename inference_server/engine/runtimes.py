"""Which engines there are on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference_server.engine import devices
from inference_server.engine.onnxruntime import OnnxRuntimeLoader, cuda_provider, installed_providers, tensorrt_provider
from inference_server.engine.port import EngineLoader
from inference_server.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Runtimes:
    """The engines of one device, and what tells measurements on it from measurements elsewhere."""

    # cpu or cuda:N.
    device: str
    # What the others must agree with: ONNX Runtime in float32 on the CPU.
    reference: EngineLoader
    # What may serve.
    candidates: tuple[EngineLoader, ...]
    # Device name and number of cores, for the key of the cache of measurements.
    machine: Mapping[str, str]


def discover(*, device: str = "cpu", threads: int = 0, engine_cache: Path | None = None) -> Runtimes:
    """The engines that serve on a device.

    `threads`: computing threads of one run, 0 for all cores that the process may use. `engine_cache`: folder for built TensorRT engines;
    without it TensorRT is no candidate. Raises `ConfigurationError` for a device that is not there: there is no silent way back to the CPU.
    """
    processor = devices.cpu()
    threads = threads or processor.cores
    reference = OnnxRuntimeLoader(threads=threads)
    machine = {"device": device, "cpu": processor.name, "cores": str(processor.cores), "threads": str(threads)}
    if device == "cpu":
        return Runtimes(device=device, reference=reference, candidates=(reference, *_openvino(threads)), machine=machine)
    gpu = _gpu(device)
    candidates = _gpu_loaders(int(device.removeprefix("cuda:")), threads, engine_cache)
    return Runtimes(device=device, reference=reference, candidates=candidates, machine=machine | {"gpu": gpu.name})


def _openvino(threads: int) -> tuple[EngineLoader, ...]:
    if importlib.util.find_spec("openvino") is None:
        return ()
    from inference_server.engine.openvino import OpenVinoLoader  # an install for GPUs comes without it

    return (OpenVinoLoader(threads=threads),)


def _gpu(device: str) -> devices.Device:
    found = devices.gpus()
    matching = [gpu for gpu in found if gpu.id == device]
    if not matching:
        there = ", ".join(["cpu", *(gpu.id for gpu in found)])
        raise ConfigurationError(f"there is no device {device}; there are: {there}")
    return matching[0]


def _gpu_loaders(device_id: int, threads: int, engine_cache: Path | None) -> tuple[EngineLoader, ...]:
    installed = installed_providers()
    if "CUDAExecutionProvider" not in installed:
        raise ConfigurationError("this build of ONNX Runtime has no CUDA; install the extra `gpu` (lamina[gpu]) instead of `cpu`")
    cuda = OnnxRuntimeLoader(threads=threads, provider=cuda_provider(device_id))
    if engine_cache is None or "TensorrtExecutionProvider" not in installed:
        return (cuda,)
    return (cuda, OnnxRuntimeLoader(threads=threads, provider=tensorrt_provider(device_id, engine_cache)))
