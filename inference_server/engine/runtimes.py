"""Which engines there are on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from inference_server.engine import devices
from inference_server.engine.cuda import CudaDevice
from inference_server.engine.onnxruntime.engine import (
    OnnxRuntimeLoader,
    cuda_provider,
    installed_providers,
    load_libraries,
    tensorrt_provider,
)
from inference_server.engine.port import EngineLoader
from inference_server.engine.tensorrt.ahead import AheadOfTime
from inference_server.engine.tensorrt.engine import TensorRtLoader, bindings
from inference_server.engine.tensorrt.plans import PlanCache
from inference_server.errors import ConfigurationError, ModelFailed

# Of a GPU's memory, for the arena of a session.
_GPU_SHARE = 0.9
# Folder of built engines, in that of all caches of engines.
PLANS = "plans"
_log = structlog.get_logger()


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
    # Which candidates are built before they are loaded; None when none is.
    ahead: AheadOfTime | None = None
    # Free and total bytes of the device's own memory, asked anew at each call; None for the CPU.
    memory: Callable[[], tuple[int, int]] | None = None


def discover(
    *,
    device: str = "cpu",
    threads: int = 0,
    engine_cache: Path | None = None,
    precisions: Sequence[str] = (),
    most_bytes: int = 0,
) -> Runtimes:
    """The engines that serve on a device.

    `threads`: computing threads of one run, 0 for all cores that the process may use. `engine_cache`: folder for built TensorRT engines;
    without it TensorRT is no candidate. `precisions`: that TensorRT is to build each model in. `most_bytes`: bound of one session's arena
    on a GPU, 0 for most of what it has. Raises `ConfigurationError` for a device that is not there: there is no silent way back to the CPU.
    """
    processor = devices.cpu()
    threads = threads or processor.cores
    reference = OnnxRuntimeLoader(threads=threads)
    machine = {"device": device, "cpu": processor.name, "cores": str(processor.cores), "threads": str(threads)}
    if device == "cpu":
        return Runtimes(device=device, reference=reference, candidates=(reference, *_openvino(threads)), machine=machine)
    gpu = _gpu(device)
    number = int(device.removeprefix("cuda:"))
    _check_cuda()
    load_libraries()
    there = _cuda_device(device, number)
    most_bytes = most_bytes or int(there.memory()[1] * _GPU_SHARE)
    cuda = OnnxRuntimeLoader(threads=threads, provider=cuda_provider(number, most_bytes=most_bytes), device=there)
    built, ahead = _built_ahead(there, number, threads, engine_cache, precisions, most_bytes) if engine_cache else ((), None)
    return Runtimes(
        device=device,
        reference=reference,
        candidates=(cuda, *built),
        machine=machine | {"gpu": gpu.name},
        ahead=ahead,
        memory=there.memory,
    )


def _built_ahead(
    device: CudaDevice, number: int, threads: int, engine_cache: Path, precisions: Sequence[str], most_bytes: int
) -> tuple[tuple[EngineLoader, ...], AheadOfTime | None]:
    """TensorRT, by itself and in ONNX Runtime; nothing where its libraries are not installed, which is told."""
    try:
        api = bindings()  # before ONNX Runtime's provider, which needs its libraries
    except ConfigurationError as error:
        _log.warning("tensorrt_is_not_there", reason=str(error))
        return (), None
    native = TensorRtLoader(device=device, api=api)
    loaders: list[EngineLoader] = [native]
    if "TensorrtExecutionProvider" in installed_providers():
        provider = tensorrt_provider(number, engine_cache, most_bytes=most_bytes)
        loaders.insert(0, OnnxRuntimeLoader(threads=threads, provider=provider, device=device))
    versions = {loader.name: native.version if loader is native else f"{loader.version}-{native.version}" for loader in loaders}
    ahead = AheadOfTime(
        PlanCache(engine_cache / PLANS),
        versions=versions,
        compute_capability=device.compute_capability(),
        device=number,
        precisions=precisions,
    )
    return tuple(loaders), ahead


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


def _cuda_device(device: str, number: int) -> CudaDevice:
    try:
        return CudaDevice(number)
    except ModelFailed as error:
        raise ConfigurationError(f"{device} cannot be used: {error}; NVIDIA's driver must be one for CUDA 13, 580 or newer") from error


def _check_cuda() -> None:
    if "CUDAExecutionProvider" not in installed_providers():
        raise ConfigurationError("this build of ONNX Runtime has no CUDA; install the extra `gpu` (lamina[gpu]) instead of `cpu`")
