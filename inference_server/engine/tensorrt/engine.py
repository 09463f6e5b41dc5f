"""TensorRT as an engine: plans that were built before, with several optimisation profiles. Alone in importing tensorrt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import structlog

from inference_server.engine.cuda import Bytes, Device, Graph
from inference_server.engine.failures import failure_on_device
from inference_server.engine.port import Tensor, Tensors, TensorSpec
from inference_server.engine.tensorrt.profiles import Range, fitting, written
from inference_server.engine.tensorrt.slot import Scratch, Slot
from inference_server.engine.transfers import Transfers
from inference_server.errors import ConfigurationError, DeviceFailed, ModelFailed

# TensorRT's names of element types, and numpy's.
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
}
# What a plan computes in that its owner built: nobody but him knows.
PLAN = "plan"
PRECISIONS = ("float32", "float16", "bfloat16")
_log = structlog.get_logger()


def bindings() -> ModuleType:
    """The package tensorrt. Raises `ConfigurationError` when it, or its libraries, are not there."""
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise ConfigurationError("TensorRT is not installed; install the extra `gpu` (lamina[gpu])") from error
    module: ModuleType = tensorrt
    return module


class TensorRtLoader:
    """Loads plans; what builds them from ONNX is `build_process`.

    `api`: the package, as `bindings` gives it.
    """

    def __init__(self, *, device: Device, api: Any) -> None:
        self._device = device
        self._api = api
        self._messages = messages(api)
        api.init_libnvinfer_plugins(self._messages, "")
        self._runtime = api.Runtime(self._messages)

    @property
    def name(self) -> str:
        """The runtime."""
        return "tensorrt"

    @property
    def version(self) -> str:
        """The runtime's version: a plan of one is refused by another."""
        return str(self._api.__version__)

    @property
    def precisions(self) -> tuple[str, ...]:
        """What plans are built in."""
        return PRECISIONS

    def load(self, path: Path, precision: str, *, threads: int = 0, options: Mapping[str, str] | None = None) -> TensorRtEngine:
        """Load a plan; `threads` means nothing here. Raises `ModelFailed` for what is no plan of this TensorRT and this kind of GPU."""
        if precision not in (*PRECISIONS, PLAN):
            raise ModelFailed(f"tensorrt does not compute in {precision}; it offers {', '.join(PRECISIONS)}")
        if path.suffix != ".plan":
            raise DeviceFailed(f"tensorrt has no plan for {path.name} yet", cause="engine_not_built")
        if not path.is_file():
            raise ModelFailed(f"no model file {path.name}")
        self._device.activate()
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise failure_on_device(
                f"tensorrt cannot load {path.name}: {self._messages.last or 'it is no plan'}; plans serve with the version of TensorRT "
                f"({self.version}) and the kind of GPU that they were built with",
                self._messages.last,
            )
        transfers = Transfers.of(options or {})
        return TensorRtEngine(engine, api=self._api, device=self._device, messages=self._messages, precision=precision, transfers=transfers)


class TensorRtEngine:
    """A plan with one execution context for each optimisation profile, which share the memory of a run.

    `transfers`: how tensors travel and runs are launched.
    """

    def __init__(self, engine: Any, *, api: Any, device: Device, messages: Any, precision: str, transfers: Transfers) -> None:
        self.name = "tensorrt"
        self.precision = precision
        # Seconds that the GPU worked, all runs together.
        self.device_seconds = 0.0
        self._engine = engine
        self._device = device
        self._messages = messages
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        specs = {name: _spec(api, engine, name) for name in names}
        takes = {name for name in names if engine.get_tensor_mode(name) == api.TensorIOMode.INPUT}
        self.inputs = tuple(spec for name, spec in specs.items() if name in takes)
        self.outputs = tuple(spec for name, spec in specs.items() if name not in takes)
        self.profiles = tuple(self._profile(number) for number in range(engine.num_optimization_profiles))
        self._stream = device.stream()
        self._scratch = Scratch(device, int(engine.device_memory_size_v2))
        self._api = api
        self._slots = [self._slot(number) for number in range(len(self.profiles))]
        self._transfers = transfers
        self._graphs: dict[tuple[Any, ...], tuple[Slot, Graph]] = {}
        self._staged: dict[str, Bytes] = {}

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Compute the outputs; they are copies. Raises `ModelFailed` also for shapes that lie in no profile."""
        names = output_names or tuple(output.name for output in self.outputs)
        given = self._checked(inputs, names)
        number = fitting(self.profiles, {name: tensor.shape for name, tensor in given.items()})
        if number is None:
            raise ModelFailed(
                f"tensorrt failed to run the model: the shapes {_shapes(given)} lie in no optimisation profile: {self._ranges()}"
            )
        self._device.activate()
        slot, graph = self._place(number, given)
        slot.shape({name: tensor.shape for name, tensor in given.items()})
        self._send(slot, given)
        if graph is None:
            slot.enqueue()
        else:
            graph.launch()
        return self._outputs(slot, names)

    def _checked(self, inputs: Tensors, names: tuple[str, ...]) -> dict[str, Tensor]:
        known = [output.name for output in self.outputs]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ModelFailed(f"tensorrt failed to run the model: no output {', '.join(unknown)}; it has {', '.join(known)}")
        types = {spec.name: spec.dtype for spec in self.inputs}
        if set(inputs) != set(types) or any(inputs[name].dtype != dtype for name, dtype in types.items()):
            expected = ", ".join(f"{name} {dtype.name}" for name, dtype in types.items())
            raise ModelFailed(f"tensorrt failed to run the model: expected {expected}")
        return dict(inputs)

    def _send(self, slot: Slot, given: Mapping[str, Tensor]) -> None:
        for name, tensor in given.items():
            if tensor.nbytes:
                self._stream.to_device(slot.inputs[name].address, self._stage(name, tensor))

    def _stage(self, name: str, tensor: Tensor) -> Bytes:
        """The elements in page-locked memory, which is kept and grown, or where they are."""
        if not self._transfers.pinned_input:
            return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
        part = self._pinned(name, tensor.nbytes)
        part.view(tensor.dtype).reshape(tensor.shape)[...] = tensor
        return part

    def _pinned(self, name: str, size: int) -> Bytes:
        kept = self._staged.get(name)
        if kept is None or kept.nbytes < size:
            kept = self._staged[name] = self._device.pinned(_rounded(size))
        return kept[:size]

    def _outputs(self, slot: Slot, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Where an output's shape hangs on values, it is known only after the run: then there are two waits."""
        if slot.unknown_shapes:
            self.device_seconds += self._stream.synchronize()
        types = {spec.name: spec.dtype for spec in self.outputs}
        hosts = {}
        for name in names:
            shape, address = slot.output(name)
            size = math.prod(shape) * types[name].itemsize
            host = self._pinned(name, size) if self._transfers.pinned_output else np.empty(size, np.uint8)
            hosts[name] = host.view(types[name]).reshape(shape)
            if size:
                self._stream.to_host(host, address)
        self.device_seconds += self._stream.synchronize()
        return {name: host.copy() for name, host in hosts.items()} if self._transfers.pinned_output else dict(hosts)

    def _place(self, number: int, given: Mapping[str, Tensor]) -> tuple[Slot, Graph | None]:
        """The context to run in, and the graph of these very shapes where graphs are wanted.

        A graph is bound to its context's shapes and addresses, so that each has a context of its own.
        """
        slot = self._slots[number]
        if self._transfers.graphs is None or slot.never_records:
            return slot, None
        shapes = {name: tensor.shape for name, tensor in given.items()}
        key = tuple(sorted(shapes.items()))
        if key not in self._graphs:
            if not self._transfers.graphs.records(shapes, len(self._graphs)):
                return slot, None
            own = self._slot(number)
            own.shape(shapes)
            if own.never_records:
                slot.never_records = True
                return slot, None
            self._send(own, given)  # a run on what lay in the memory before could reach anywhere
            own.enqueue()  # what is set up at the first run must not be recorded
            self._stream.synchronize()
            self._graphs[key] = (own, self._stream.record(own.enqueue))
        return self._graphs[key]

    def _slot(self, number: int) -> Slot:
        context = self._engine.create_execution_context(self._api.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise failure_on_device(f"tensorrt cannot run the model: {self._messages.last}", self._messages.last)
        if not context.set_optimization_profile_async(number, self._stream.handle):
            raise ModelFailed(f"tensorrt cannot use its optimisation profile {number}: {self._messages.last}")
        self._stream.synchronize()
        self._scratch.give(context)
        return Slot(
            context,
            api=self._api,
            device=self._device,
            stream=self._stream,
            messages=self._messages,
            inputs=self.inputs,
            outputs=self.outputs,
        )

    def _profile(self, number: int) -> dict[str, Range]:
        ranges = {spec.name: self._engine.get_tensor_profile_shape(spec.name, number) for spec in self.inputs}
        return {name: Range(least=tuple(least), best=tuple(best), most=tuple(most)) for name, (least, best, most) in ranges.items()}

    def _ranges(self) -> str:
        return "; ".join(map(written, self.profiles))


def messages(api: Any) -> Any:
    """A logger that keeps the last error and passes warnings on. TensorRT tells why something failed nowhere else."""

    class Messages(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            api.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR):
                self.last = message[:500]
                _log.error("tensorrt", reason=message[:2000])
            elif severity == api.ILogger.Severity.WARNING:
                _log.debug("tensorrt", reason=message[:2000])

    return Messages()


def _spec(api: Any, engine: Any, name: str) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise ModelFailed(f"tensor {name} of the plan is of type {kind}, which is not served; expected one of {', '.join(_DTYPES)}")
    if engine.is_shape_inference_io(name) or engine.get_tensor_location(name) != api.TensorLocation.DEVICE:
        raise ModelFailed(f"tensor {name} of the plan is a shape tensor, which is not served; give the model's shapes by its other inputs")
    if engine.get_tensor_format(name) != api.TensorFormat.LINEAR:
        raise ModelFailed(f"tensor {name} of the plan is in the format {engine.get_tensor_format(name).name}; build it with LINEAR ones")
    return TensorSpec(name=name, dtype=_DTYPES[kind], shape=tuple(engine.get_tensor_shape(name)))


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())


def _rounded(size: int) -> int:
    """Room that is grown by doubling, so that it is grown seldom."""
    return 1 << max(12, (size - 1).bit_length()) if size > 1 else 4096
