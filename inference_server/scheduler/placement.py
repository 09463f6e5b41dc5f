"""Where a model's instances go, and what its owner wants of the engines there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from inference_server.engine.selection import EngineOptions, EngineSelector
from inference_server.errors import ConfigurationError
from inference_server.models.accelerators import Accelerator
from inference_server.models.values import Configuration, RateLimit


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an instance is to go."""

    selector: EngineSelector
    rate: RateLimit


def accelerator_on(configuration: Configuration, device: str) -> Accelerator | None:
    """What the owner wants instances on a device to run on."""
    return configuration.accelerators.get(_kind(device))


def options_on(configuration: Configuration, device: str) -> EngineOptions:
    """The model's own options of the engine that its owner wants on a device."""
    accelerator = accelerator_on(configuration, device)
    return {accelerator.engine.partition(":")[0]: accelerator.options} if accelerator and accelerator.options else {}


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


def _kind(device: str) -> str:
    return "cpu" if device == "cpu" else "gpu"
