"""The models of the repository and the engines that run them, as the settings have them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from inference_server.engine.runtimes import PLANS, Runtimes, discover
from inference_server.engine.selection.measurements import MeasurementCache
from inference_server.engine.selection.selector import EngineSelector
from inference_server.engine.tensorrt.building import EngineBuilds
from inference_server.errors import ConfigurationError
from inference_server.models.repository import ModelRepository
from inference_server.scheduler.dispatch.admission import QueueLimits
from inference_server.scheduler.options import SchedulingOptions
from inference_server.scheduler.registry import ServingModels
from inference_server.settings import Settings


def serving_models(settings: Settings, registry: CollectorRegistry) -> ServingModels:
    """The models of the repository, none of them loaded yet. Raises `ConfigurationError`."""
    if not settings.models.is_dir():
        raise ConfigurationError(
            f"INFERENCE_MODELS (--models): {settings.models} is no folder. "
            f"Make it with the built-in models in it: inference-server models build --models {settings.models}"
        )
    devices = dict.fromkeys((settings.device, "cpu"))
    cache = MeasurementCache(settings.engine_cache / "measurements")
    engines = {device: EngineSelector(runtimes(settings, device), cache=cache) for device in devices}
    engines[settings.device].check_pin(settings.engine)
    options = SchedulingOptions(
        limits=QueueLimits(max_requests=settings.max_queue_requests, max_bytes=settings.max_queue_bytes),
        engine=settings.engine,
        client_weights=settings.client_weights,
        model_memory_bytes=settings.model_memory_bytes,
        response_cache_bytes=settings.response_cache_bytes,
        gpu_memory_bytes=settings.gpu_memory_bytes,
        cpu_fallback=settings.fallback == "cpu",
    )
    builds = settings.device != "cpu" and settings.build_engines == "background"
    return ServingModels(
        ModelRepository(settings.models),
        engines,
        metrics=registry,
        options=options,
        builder=EngineBuilds(settings.engine_cache / PLANS) if builds else None,
    )


def runtimes(settings: Settings, device: str) -> Runtimes:
    """The engines of a device, as the settings have them. Raises `ConfigurationError`."""
    return discover(
        device=device,
        threads=settings.threads,
        engine_cache=settings.engine_cache,
        precisions=settings.tensorrt,
        most_bytes=settings.gpu_memory_bytes,
    )
