"""The CPU in the place of a GPU that fails: only where the operator allows it, never silently."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import structlog

from inference_server.engine.port import Engine, Tensor, Tensors, TensorSpec
from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.port import Device

_log = structlog.get_logger()


class SpareEngine:
    """A model's copy on the CPU, loaded when it is first needed and shared by the model's instances, one run at a time: an `Engine`.

    `load`: loads it; blocks.
    """

    def __init__(self, load: Callable[[], Engine], *, model: str) -> None:
        self._load = load
        self._model = model
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The runtime."""
        return self._engine.name if self._engine else "cpu"

    @property
    def precision(self) -> str:
        """What it computes in."""
        return self._engine.precision if self._engine else "float32"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs."""
        return self._loaded().inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs."""
        return self._loaded().outputs

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Compute; see `Engine`."""
        with self._lock:
            return self._loaded().run(inputs, output_names)

    def _loaded(self) -> Engine:
        if self._engine is None:
            _log.warning("spare_engine_loads", model=self._model)
            self._engine = self._load()
        return self._engine


def copy_on_cpu(placed: Sequence[PlacedEngine]) -> PlacedEngine | None:
    """What runs requests that the CPU alone may run, where a model's instances are on GPUs; None where the operator allows none."""
    return next((PlacedEngine(engine=each.spare, device="cpu") for each in placed if each.spare), None)


def missing_devices(placed: Sequence[PlacedEngine]) -> Mapping[Device, str]:
    """The kinds of devices that do not run a model with these instances, and why."""
    if all(each.device == "cpu" for each in placed):
        cause = next((each.fallback for each in placed if each.fallback), "")
        return {Device.GPU: f"it could not be loaded there ({cause})" if cause else "this server runs it on its CPU"}
    if copy_on_cpu(placed) is None:
        return {Device.CPU: "only its GPU may run it, as INFERENCE_FALLBACK is none or the model is a plan of TensorRT"}
    return {}
