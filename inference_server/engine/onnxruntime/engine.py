"""ONNX Runtime as an engine: on the CPU, and on a GPU through CUDA or TensorRT."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime

from inference_server.engine.cuda import Device
from inference_server.engine.failures import failure_on_device
from inference_server.engine.onnxruntime.beside import run_on_worker
from inference_server.engine.onnxruntime.device import DeviceRuns
from inference_server.engine.port import Tensor, Tensors, TensorSpec
from inference_server.engine.transfers import GRAPH_SHAPES, PINNED_INPUT, PINNED_OUTPUT, Transfers
from inference_server.errors import ModelFailed

# ONNX Runtime's names of element types, and numpy's.
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(bfloat16)": "bfloat16",
    "tensor(string)": "object",
}
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# TensorProto.BFLOAT16
_ONNX_BFLOAT16 = 16
_ERRORS_ONLY = 3
# Bytes of the inputs and outputs of a run from which on what it leaves is not kept for long.
_MUCH_BYTES = 2**23
# Threads of an engine that may run two batches side by side: with more, the second would share its loops with those that are left.
_TWO_CORES = 2
# Options of a load that are this server's, beside the provider's own.
_TRANSFERS = (PINNED_INPUT, PINNED_OUTPUT, GRAPH_SHAPES)


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An execution provider of ONNX Runtime and how it is asked for."""

    # The engine's name in facts, metrics and pins.
    engine: str
    # ONNX Runtime's name of it.
    name: str
    # Provider options by precision; the reference precision first.
    options: dict[str, dict[str, str]]
    # Providers that take the operators which it does not know, most wanted first.
    helpers: tuple[tuple[str, dict[str, str]], ...] = field(default=())
    # Number of the GPU; None on the CPU.
    device_id: int | None = None


CPU = Provider(engine="onnxruntime", name="CPUExecutionProvider", options={"float32": {}})


def installed_providers() -> tuple[str, ...]:
    """The execution providers that this build of ONNX Runtime was compiled with."""
    return tuple(onnxruntime.get_available_providers())


def load_libraries() -> None:
    """Load CUDA's libraries where they come as wheels: ONNX Runtime itself looks where the system has them only."""
    if importlib.util.find_spec("nvidia") is not None:
        onnxruntime.preload_dlls(directory="")


def cuda_provider(device_id: int, *, most_bytes: int = 0) -> Provider:
    """CUDA, with the convolution search that does not start over for each new shape, and an arena that grows by what is asked.

    `most_bytes`: bound of the arena of one session; 0 for none.
    """
    return Provider(
        engine="onnxruntime-cuda",
        name="CUDAExecutionProvider",
        options={"float32": _cuda_options(device_id, most_bytes)},
        device_id=device_id,
    )


def tensorrt_provider(device_id: int, engine_cache: Path, *, most_bytes: int = 0) -> Provider:
    """TensorRT, with CUDA for the operators that it does not know; built engines are kept in `engine_cache`."""
    options = {
        "device_id": str(device_id),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engine_cache),
        "trt_timing_cache_enable": "1",
    }
    return Provider(
        engine="onnxruntime-tensorrt",
        name="TensorrtExecutionProvider",
        options={"float32": options, "float16": options | {"trt_fp16_enable": "1"}, "bfloat16": options | {"trt_bf16_enable": "1"}},
        helpers=(("CUDAExecutionProvider", _cuda_options(device_id, most_bytes)),),
        device_id=device_id,
    )


def _cuda_options(device_id: int, most_bytes: int) -> dict[str, str]:
    bound = {"gpu_mem_limit": str(most_bytes)} if most_bytes else {}
    return bound | {
        "device_id": str(device_id),
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",
    }


class OnnxRuntimeLoader:
    """Loads ONNX files into ONNX Runtime with one execution provider, and never silently with another.

    `threads`: computing threads of an engine whose load names no number. `device`: the provider's GPU, for tensors that are bound where
    they lie; without it ONNX Runtime copies them.
    """

    def __init__(self, *, threads: int, provider: Provider = CPU, device: Device | None = None) -> None:
        self._threads = threads
        self._provider = provider
        self._device = device

    @property
    def name(self) -> str:
        """The runtime and its provider."""
        return self._provider.engine

    @property
    def version(self) -> str:
        """The runtime's version."""
        return str(onnxruntime.__version__)

    @property
    def precisions(self) -> tuple[str, ...]:
        """float32, and what else the provider computes in."""
        return tuple(self._provider.options)

    def load(self, path: Path, precision: str, *, threads: int = 0, options: Mapping[str, str] | None = None) -> OnnxRuntimeEngine:
        """Load a model; raises `ModelFailed` also when the runtime would fall back to another provider."""
        if precision not in self._provider.options:
            raise ModelFailed(f"{self.name} does not compute in {precision}; it offers {', '.join(self.precisions)}")
        if not path.is_file():
            raise ModelFailed(f"no model file {path.name}")
        own = {key: value for key, value in (options or {}).items() if key not in _TRANSFERS}
        wanted = (self._provider.name, self._provider.options[precision] | own)
        providers = [wanted, *self._provider.helpers] + ([] if self._provider is CPU else [(CPU.name, {})])
        try:
            session = onnxruntime.InferenceSession(path, _session_options(threads or self._threads), providers=providers)
        except Exception as error:  # ONNX Runtime's own errors share no base class
            raise ModelFailed(f"{self.name} cannot load {path.name}: {_reason(error).replace(str(path), path.name)}") from error
        if session.get_providers()[0] != self._provider.name:
            raise ModelFailed(
                f"{self.name} cannot run {path.name}: ONNX Runtime fell back from {self._provider.name} to {session.get_providers()[0]}; "
                "check that the device is there and that its libraries are of the versions which this build of ONNX Runtime needs"
            )
        threads = threads or self._threads
        engine = OnnxRuntimeEngine(session, name=self.name, precision=precision, on_device=self._provider is not CPU, threads=threads)
        if self._device is not None and self._provider.device_id is not None:
            engine.bind(self._device, self._provider.device_id, Transfers.of(options or {}))
        return engine


class OnnxRuntimeEngine:
    """A session of ONNX Runtime."""

    def __init__(self, session: Any, *, name: str, precision: str, on_device: bool = False, threads: int = 0) -> None:
        self._session = session
        self._compute: Callable[..., list[Tensor]] = session.run
        self._on_device = on_device
        self._threads = threads
        self.name = name
        self.precision = precision
        self.inputs = tuple(map(_spec, session.get_inputs()))
        self.outputs = tuple(map(_spec, session.get_outputs()))
        self._output_names = tuple(output.name for output in self.outputs)
        tensors = (*self.inputs, *self.outputs)
        self._has_bfloat16 = any(tensor.dtype == _BFLOAT16 for tensor in tensors)
        self._has_strings = any(tensor.dtype == object for tensor in tensors)
        self._runs: DeviceRuns | None = None
        self.keeps_much = False

    @property
    def device_seconds(self) -> float:
        """Seconds of runs on the GPU and of copies to and from it, all together."""
        return self._runs.seconds if self._runs else 0.0

    def bind(self, device: Device, number: int, transfers: Transfers) -> None:
        """Keep tensors in memory of the device; strings, which have none there, are left to ONNX Runtime."""
        if not self._has_strings:
            self._runs = DeviceRuns(self._session, device, number=number, outputs=self.outputs, transfers=transfers)

    def beside(self) -> OnnxRuntimeEngine | None:
        """See `RunsBeside`."""
        if self._on_device or self._threads != _TWO_CORES or self._has_bfloat16:
            return None
        engine = OnnxRuntimeEngine(self._session, name=self.name, precision=self.precision)
        engine._compute = partial(run_on_worker, self._session)
        return engine

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Compute the outputs; they belong to the caller."""
        names = output_names or self._output_names
        try:
            values = self._values(names, inputs)
        except Exception as error:  # ONNX Runtime's own errors share no base class
            message = f"{self.name} failed to run the model: {_reason(error)}"
            raise (failure_on_device(message, str(error)) if self._on_device else ModelFailed(message)) from error
        if not (self._on_device or self.keeps_much):
            self.keeps_much = _bytes_of(inputs.values()) + _bytes_of(values) > _MUCH_BYTES
        return dict(zip(names, values, strict=True))

    def give_back(self) -> None:
        """Have the arena of the CPU freed, in which the outputs lay: it else keeps as much as the largest batch took, for ever."""
        self.keeps_much = False
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        # The arena is freed at a run's end, and this one ends before it begins.
        options.terminate = True
        smallest = {spec.name: np.zeros([max(size, 1) for size in spec.shape], spec.dtype) for spec in self.inputs}
        with contextlib.suppress(Exception):  # ONNX Runtime's own errors share no base class
            self._values(self._output_names, smallest, options)

    def _values(self, names: tuple[str, ...], inputs: Tensors, options: Any = None) -> list[Tensor]:
        if self._runs:
            return self._runs.run(names, inputs)
        if self._has_bfloat16:
            return self._run_values(names, inputs, options)
        return self._compute(names, inputs, options)

    def _run_values(self, names: tuple[str, ...], inputs: Tensors, options: Any) -> list[Tensor]:
        """ONNX Runtime does not know numpy's bfloat16: it takes and gives it as bits."""
        values = {name: _to_value(tensor) for name, tensor in inputs.items()}
        return [_from_value(value) for value in self._session.run_with_ort_values(names, values, options)]


def _to_value(tensor: Tensor) -> Any:
    if tensor.dtype != _BFLOAT16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(tensor)
    bits = np.ascontiguousarray(tensor).view(np.uint16)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _from_value(value: Any) -> Tensor:
    if value.data_type() != "tensor(bfloat16)":
        output: Tensor = value.numpy()
        return output
    shape = tuple(value.shape())
    bits = np.empty(shape, np.uint16)
    ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits.view(_BFLOAT16)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _session_options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    # Threads of one model that spin while they wait would take the cores from the other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan of the memory is kept for each shape ever seen: with line widths and page sizes that grows without end.
    options.enable_mem_pattern = False
    return options


def _spec(node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise ModelFailed(f"tensor {node.name} is of type {node.type}, which is not served; expected one of {', '.join(_DTYPES)}")
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(name=node.name, dtype=np.dtype(_DTYPES[node.type]), shape=shape)


def _reason(error: Exception) -> str:
    """The first line of the message, without the code that ONNX Runtime puts before it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rpartition(" : ")[2][:500]
