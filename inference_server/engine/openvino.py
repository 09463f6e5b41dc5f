"""OpenVINO as an engine, on the CPU in float32 and, where the processor computes in it, bfloat16.

In bfloat16 those convolutions are computed in int8 whose ranges the model's file tells (`int8`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino._offline_transformations import compress_model_transformation

from inference_server.engine.int8 import quantise, ranges_of
from inference_server.engine.port import Tensor, Tensors, TensorSpec
from inference_server.errors import ModelFailed

_DEVICE = "CPU"
# OpenVINO's names of precisions, by ours.
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# What an engine keeps prepared for shapes that it has met, in entries of OpenVINO's cache: some 30 a shape, which take 4 MiB. By itself it
# keeps 5,000, and pages of ever new sizes have the text detector alone grow by 500 MiB. So many hold all shapes of the text recogniser
# on two cores, and most of those that come often on more.
_CACHE_ENTRIES = 2000


class OpenVinoLoader:
    """Loads ONNX files into OpenVINO.

    `threads`: computing threads of an engine whose load names no number.
    """

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._core = openvino.Core()

    @property
    def name(self) -> str:
        """The runtime."""
        return "openvino"

    @property
    def version(self) -> str:
        """The runtime's version."""
        return str(openvino.__version__)

    @property
    def precisions(self) -> tuple[str, ...]:
        """float32, and bfloat16 where the processor has instructions for it."""
        capabilities = self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        return ("float32", "bfloat16") if "BF16" in capabilities else ("float32",)

    def load(self, path: Path, precision: str, *, threads: int = 0, options: Mapping[str, str] | None = None) -> OpenVinoEngine:
        """Load a model; raises `ModelFailed` for a broken file and for tensors of strings."""
        if precision not in self.precisions:
            raise ModelFailed(f"openvino does not compute in {precision} here; it offers {', '.join(self.precisions)}")
        if not path.is_file():
            raise ModelFailed(f"no model file {path.name}")
        try:
            settings = _options(precision, threads or self._threads) | dict(options or {})
            model = self._core.read_model(path)
            # Compiled, a tensor has the names of all that pass it on unchanged, in any order; as it is read, the file's own name alone.
            inputs, outputs = tuple(map(_spec, model.inputs)), tuple(map(_spec, model.outputs))
            if precision == "bfloat16":
                # The plugin keeps the file's weights beside its own: in half the bytes they still have more digits than bfloat16.
                compress_model_transformation(model)
                # Processors of bfloat16 take twice as many products of int8 at once.
                quantise(model, ranges_of(model))
            compiled = self._core.compile_model(model, _DEVICE, settings)
            return OpenVinoEngine(compiled, inputs, outputs, precision=precision)
        except RuntimeError as error:
            raise ModelFailed(f"openvino cannot load {path.name}: {_reason(error).replace(str(path), path.name)}") from error


class OpenVinoEngine:
    """A compiled model with one infer request."""

    def __init__(self, compiled: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], *, precision: str) -> None:
        self.name = "openvino"
        self.precision = precision
        self.inputs = inputs
        self.outputs = outputs
        self._positions = {output.name: position for position, output in enumerate(outputs)}
        # One infer request: an engine is called from one thread at a time.
        self._request = compiled.create_infer_request()

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Compute the outputs; they are copies, which the next run leaves alone."""
        unknown = [name for name in output_names if name not in self._positions]
        if unknown:
            raise ModelFailed(f"openvino failed to run the model: no output {', '.join(unknown)}; it has {', '.join(self._positions)}")
        try:
            results = self._request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelFailed(f"openvino failed to run the model: {_reason(error)}") from error
        return {name: results[self._positions[name]] for name in output_names or self._positions}


def _options(precision: str, threads: int) -> dict[str, Any]:
    return {
        # One stream on all threads: the scheduler gives an instance one batch at a time. THROUGHPUT would split
        # the threads into streams of which one instance could use only one.
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        # Several models and instances share the cores: pinned, they would all sit on the first ones.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _CACHE_ENTRIES,
    }


def _spec(port: Any) -> TensorSpec:
    element = port.get_element_type()
    if element == openvino.Type.string:
        raise ModelFailed(f"openvino does not serve tensors of strings, such as {port.get_any_name()}")
    if element == openvino.Type.bf16:
        raise ModelFailed(f"openvino does not serve tensors of bfloat16, such as {port.get_any_name()}")
    shape = tuple(size.get_length() if size.is_static else -1 for size in port.get_partial_shape())
    return TensorSpec(name=port.get_any_name(), dtype=np.dtype(element.to_dtype()), shape=shape)


def _reason(error: Exception) -> str:
    """The message without the places in OpenVINO's source."""
    lines = [line for line in map(str.strip, str(error).splitlines()) if line and not line.startswith(("Exception from", "Check '"))]
    return " ".join(lines or [type(error).__name__])[:500]
