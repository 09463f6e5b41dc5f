"""An engine that was built for ranges of shapes, and another for the shapes beyond: none is ever built in a request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog

from inference_server.engine.port import Engine, Tensor, Tensors
from inference_server.engine.tensorrt.profiles import Profile, fitting

_log = structlog.get_logger()


class RangedEngine:
    """Runs what lies in a profile on one engine, and the rest on another, which is loaded when it is first needed: an `Engine`.

    `load_other`: loads the one that takes all shapes; blocks.
    """

    def __init__(self, engine: Engine, *, profiles: Sequence[Profile], load_other: Callable[[], Engine]) -> None:
        self._engine = engine
        self._load_other = load_other
        self._other: Engine | None = None
        self._lock = threading.Lock()
        self.profiles = tuple(profiles)
        self.name = engine.name
        self.precision = engine.precision
        self.inputs = engine.inputs
        self.outputs = engine.outputs
        # Runs whose shapes lay in no profile.
        self.outside = 0

    @property
    def device_seconds(self) -> float:
        """Seconds that the GPU worked, all runs together."""
        return sum(float(getattr(engine, "device_seconds", 0.0)) for engine in (self._engine, self._other))

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Compute; see `Engine`."""
        shapes = {name: tensor.shape for name, tensor in inputs.items()}
        if fitting(self.profiles, shapes) is not None:
            return self._engine.run(inputs, output_names)
        with self._lock:
            self.outside += 1
            if self._other is None:
                _log.warning("shapes_outside_of_profiles", engine=self.name, shapes={name: list(shape) for name, shape in shapes.items()})
                self._other = self._load_other()
        return self._other.run(inputs, output_names)
