"""Where a model's instances go, and what its owner wants of the engines there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inference_server.engine.port import TensorSpec
from inference_server.engine.selection.selector import EngineOptions, EngineSelector
from inference_server.engine.tensorrt.ahead import NATIVE, PROVIDER
from inference_server.engine.tensorrt.profiles import Profile, check_profile, likely_profile, read_profile, read_provider_shapes
from inference_server.engine.transfers import CUDA_GRAPHS, GRAPH_SHAPES, PINNED_INPUT, PINNED_OUTPUT
from inference_server.errors import ConfigurationError
from inference_server.models.accelerators import Accelerator
from inference_server.models.values import Configuration, Placement, RateLimit

CUDA = "onnxruntime-cuda"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instance is to go."""

    selector: EngineSelector
    rate: RateLimit


def places_of(name: str, configuration: Configuration, engines: Mapping[str, EngineSelector]) -> list[Place]:
    """Where each instance goes; `engines` by device, the server's own first. Raises `ConfigurationError` for devices that are not there."""
    return [
        Place(selector=engines[device], rate=placement.rate)
        for placement in configuration.placements
        for device in _devices(name, placement, list(engines))
        for _ in range(placement.count)
    ]


def _devices(name: str, placement: Placement, there: list[str]) -> list[str]:
    gpus = [device for device in there if device.startswith("cuda:")]
    if placement.gpus:
        gpus = [device for device in gpus if int(device.removeprefix("cuda:")) in placement.gpus]
    devices = {"cpu": [device for device in there if device == "cpu"], "gpu": gpus, "auto": there[:1]}[placement.kind]
    if not devices:
        raise ConfigurationError(
            f"model {name} has an instance_group of KIND_{placement.kind.upper()} with gpus {list(placement.gpus)}; this server runs "
            f"on {', '.join(there)}: use KIND_AUTO or change the server's device"
        )
    return devices


def accelerator_on(configuration: Configuration, device: str) -> Accelerator | None:
    """What the owner wants instances on a device to run on."""
    return configuration.accelerators.get(_kind(device))


def options_on(configuration: Configuration, device: str) -> EngineOptions:
    """The model's own options of the engines on a device."""
    accelerator = accelerator_on(configuration, device)
    options = {accelerator.engine.partition(":")[0]: dict(accelerator.options)} if accelerator and accelerator.options else {}
    if _kind(device) == "cpu":
        return options
    gpu = configuration.gpu
    shared = {} if gpu.pinned_input else {PINNED_INPUT: "0"}
    shared |= {} if gpu.pinned_output else {PINNED_OUTPUT: "0"}
    if gpu.graph_specs:
        shared[GRAPH_SHAPES] = json.dumps(gpu.graph_specs)
    own = {
        CUDA: {**gpu.cuda, **({"enable_cuda_graph": "1"} if gpu.graphs else {})},
        PROVIDER: {"trt_cuda_graph_enable": "1"} if gpu.graphs else {},
        NATIVE: {CUDA_GRAPHS: "1"} if gpu.graphs else {},
    }
    if PROVIDER in options and pin_of(configuration, device).partition(":")[0] == NATIVE:
        options[NATIVE] = options.pop(PROVIDER)
    merged = {engine: {**mine, **shared, **options.get(engine, {})} for engine, mine in own.items()}
    return options | {engine: chosen for engine, chosen in merged.items() if chosen}


def profiles_of(
    configuration: Configuration, inputs: Sequence[TensorSpec], *, default_max_batch_size: int, device: str
) -> tuple[Profile, ...]:
    """The ranges of shapes that TensorRT builds engines for: the owner's, or one around what the model is likely to get.

    Raises `ConfigurationError` for profiles that do not fit the model.
    """
    accelerator = accelerator_on(configuration, device)
    told = tuple(map(read_profile, configuration.profiles)) or read_provider_shapes(accelerator.options if accelerator else {})
    for profile in told:
        check_profile(profile, inputs)
    if told:
        return told
    batched = all(spec.shape[:1] == (-1,) for spec in inputs)
    rows = (default_max_batch_size if batched else 0) if configuration.max_batch_size is None else configuration.max_batch_size
    warmups = {name: given.dims for warmup in configuration.warmups[:1] for name, given in warmup.inputs.items()}
    return (likely_profile(inputs, rows=rows, shapes=warmups | dict(configuration.warmup_shapes)),)


def pin_of(configuration: Configuration, device: str) -> str:
    """The engine that the owner wants on a device; empty where he leaves it open.

    Several profiles are for TensorRT itself: ONNX Runtime's provider is left one.
    """
    accelerator = accelerator_on(configuration, device)
    wanted = configuration.engine or (accelerator.engine if accelerator else "")
    engine, colon, precision = wanted.partition(":")
    several = engine == PROVIDER and not configuration.engine and len(configuration.profiles) > 1
    return f"{NATIVE}{colon}{precision}" if several else wanted


def check_accelerators(name: str, configuration: Configuration, devices: Iterable[str]) -> None:
    """Raises `ConfigurationError` for an accelerator of devices on which the model has no instance, or against the pinned engine."""
    used = list(dict.fromkeys(devices))
    for kind, accelerator in configuration.accelerators.items():
        if not any(_kind(device) == kind for device in used):
            raise ConfigurationError(
                f"{name}/config.pbtxt asks for the {kind}_execution_accelerator {accelerator.name}, but the model runs on "
                f"{', '.join(used)} here; take it out or change the server's device"
            )
        if configuration.engine not in ("", accelerator.engine):
            raise ConfigurationError(
                f"{name}/config.pbtxt asks for the accelerator {accelerator.name} and for lamina.engine {configuration.engine}; "
                "expected one of the two"
            )

    if configuration.gpu.asked and all(_kind(device) == "cpu" for device in used):
        raise ConfigurationError(
            f"{name}/config.pbtxt asks for {', '.join(configuration.gpu.asked)}, which means something on a GPU only; the model runs on "
            f"{', '.join(used)} here: take it out or change the server's device"
        )


def _kind(device: str) -> str:
    return "cpu" if device == "cpu" else "gpu"
