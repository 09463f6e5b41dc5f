"""The package tensorrt over a `FakeDevice`: the names of the real one, and ONNX's own evaluator for what it computes.

Only what `inference_server.engine` uses. A plan is JSON with the ONNX file in it.
"""

from __future__ import annotations

import base64
import json
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.reference import ReferenceEvaluator

from tests.support.gpu.fake_device import FakeDevice

VERSION = "10.16.1.11"
DataType = Enum("DataType", "FLOAT HALF BF16 INT8 UINT8 INT32 INT64 BOOL FP8 FP4 INT4 E8M0")
TensorIOMode = Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = Enum("TensorLocation", "DEVICE HOST")
TensorFormat = Enum("TensorFormat", "LINEAR HWC8 CHW32")
MemoryPoolType = Enum("MemoryPoolType", "WORKSPACE TACTIC_DRAM")
BuilderFlag = Enum("BuilderFlag", "FP16 BF16 TF32 SPARSE_WEIGHTS")
ExecutionContextAllocationStrategy = Enum("ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
_NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}


class ILogger:
    Severity = Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class IOutputAllocator:
    pass


class IProgressMonitor:
    pass


def fake_tensorrt(device: FakeDevice, **faults: Any) -> Any:
    """The package. `faults`: `execution`, the reason that each run fails for; `error`, the relative error of each output."""
    kept = SimpleNamespace(device=device, contexts=[], **{"execution": "", "error": 0.0, **faults})
    return SimpleNamespace(
        __version__=VERSION,
        kept=kept,
        DataType=DataType,
        TensorIOMode=TensorIOMode,
        TensorLocation=TensorLocation,
        TensorFormat=TensorFormat,
        MemoryPoolType=MemoryPoolType,
        BuilderFlag=BuilderFlag,
        ExecutionContextAllocationStrategy=ExecutionContextAllocationStrategy,
        ILogger=ILogger,
        IOutputAllocator=IOutputAllocator,
        IProgressMonitor=IProgressMonitor,
        Runtime=lambda logger: Runtime(logger, kept),
        Builder=lambda logger: Builder(logger),
        OnnxParser=OnnxParser,
        init_libnvinfer_plugins=lambda logger, namespace: True,
    )


class Runtime:
    def __init__(self, logger: ILogger, kept: Any) -> None:
        self._logger = logger
        self._kept = kept

    def deserialize_cuda_engine(self, serialized: bytes) -> ICudaEngine | None:
        try:
            return ICudaEngine(json.loads(serialized), self._logger, self._kept)
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "the magic tag does not match")
            return None


class ICudaEngine:
    def __init__(self, plan: dict[str, Any], logger: ILogger, kept: Any) -> None:
        self._plan = plan
        self._logger = logger
        self._kept = kept
        self._model = onnx.load_model_from_string(base64.b64decode(plan["onnx"])) if "onnx" in plan else None
        self._tensors = {tensor["name"]: tensor for tensor in plan["tensors"]}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._plan["profiles"])

    @property
    def device_memory_size_v2(self) -> int:
        return int(self._plan.get("scratch", 1024))

    def get_tensor_name(self, number: int) -> str:
        return list(self._tensors)[number]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode[self._tensors[name]["mode"]]

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[self._tensors[name]["dtype"]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name]["shape"])

    def get_tensor_format(self, name: str) -> Any:
        return TensorFormat[self._tensors[name].get("format", "LINEAR")]

    def get_tensor_location(self, name: str) -> Any:
        return TensorLocation[self._tensors[name].get("location", "DEVICE")]

    def is_shape_inference_io(self, name: str) -> bool:
        return bool(self._tensors[name].get("shape_tensor"))

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._plan["profiles"][profile_index][name]]

    def create_execution_context(self, strategy: Any) -> IExecutionContext:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        context = IExecutionContext(self, self._logger, self._kept, self._plan, self._model)
        self._kept.contexts.append(context)
        return context


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, logger: ILogger, kept: Any, plan: dict[str, Any], model: Any) -> None:
        self._engine = engine
        self._logger = logger
        self._kept = kept
        self._plan = plan
        self._evaluator = ReferenceEvaluator(model) if model else None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._memory = 0
        self.active_optimization_profile = -1

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self.active_optimization_profile = profile_index
        return stream_handle in self._kept.device.streams

    def set_device_memory(self, memory: int, size: int) -> None:
        self._kept.device.at(memory, size)
        self._memory = size

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, self.active_optimization_profile)
        if len(shape) != len(least) or not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            self._logger.log(ILogger.Severity.ERROR, "a shape is out of the range of its profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        self._allocators[name] = output_allocator
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._named("INPUT") if name not in self._shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._plan.get("data_dependent", ()):
            return tuple(-1 for _ in self._engine.get_tensor_shape(name))
        zeros = {each: np.zeros(shape, self._dtype(each)) for each, shape in self._shapes.items()}
        return self._computed(zeros)[name].shape

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._kept.execution or self._memory < self._engine.device_memory_size_v2:
            self._logger.log(ILogger.Severity.ERROR, self._kept.execution or "no device memory was given")
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        self._kept.device.streams[stream_handle].push(lambda: self._run(shapes, addresses, stream_handle))
        return True

    def _run(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], stream_handle: int) -> None:
        device = self._kept.device
        inputs = {}
        for name, shape in shapes.items():
            dtype = self._dtype(name)
            inputs[name] = device.at(addresses[name], int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
        for name, value in self._computed(inputs).items():
            content = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            address = addresses.get(name, 0)
            if self._allocators.get(name):
                address = self._allocators[name].reallocate_output_async(name, address, content.nbytes, 256, stream_handle)
                self._allocators[name].notify_shape(name, value.shape)
            if content.nbytes:
                device.at(address, content.nbytes)[...] = content

    def _computed(self, inputs: dict[str, Any]) -> dict[str, Any]:
        names = self._named("OUTPUT")
        if self._evaluator is None:
            return dict(zip(names, inputs.values(), strict=True))
        values = [np.asarray(value) for value in self._evaluator.run(names, inputs)]
        wrong = 1 + self._kept.error
        return {
            name: value * value.dtype.type(wrong) if value.dtype.kind == "f" else value for name, value in zip(names, values, strict=True)
        }

    def _named(self, mode: str) -> list[str]:
        return [tensor["name"] for tensor in self._plan["tensors"] if tensor["mode"] == mode]

    def _dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(_NUMPY[self._engine.get_tensor_dtype(name).name])


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        if config.progress_monitor:
            config.progress_monitor.phase_start("Building Engine", None, 2)
            config.progress_monitor.step_complete("Building Engine", 0)
            config.progress_monitor.phase_finish("Building Engine")
        try:
            tensors = [_described(value, "INPUT") for value in network.model.graph.input]
            tensors += [_described(value, "OUTPUT") for value in network.model.graph.output]
        except KeyError:
            self._logger.log(ILogger.Severity.ERROR, "a tensor has an unsupported data type")
            return None
        content = base64.b64encode(network.model.SerializeToString()).decode()
        config.cache.content = b"timings"
        built = {"flags": sorted(flag.name for flag in config.flagged), "workspace": config.workspace}
        return json.dumps({"onnx": content, "tensors": tensors, "profiles": config.profiles, **built}).encode()


class INetworkDefinition:
    def __init__(self) -> None:
        self.model = onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int) -> Any:
        return self.model.graph.input[index]


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self.num_errors = 0

    def parse_from_file(self, model: str) -> bool:
        try:
            self._network.model.CopyFrom(onnx.load(Path(model)))
        except (OSError, DecodeError):
            self.num_errors = 1
        return not self.num_errors and bool(self._network.model.graph.output)

    def get_error(self, index: int) -> ParserError:
        return ParserError()


class ParserError:
    def desc(self) -> str:
        return "the file cannot be parsed"

    def node_operator(self) -> str:
        return ""

    def node_name(self) -> str:
        return ""


class IBuilderConfig:
    def __init__(self) -> None:
        self.progress_monitor: Any = None
        self.builder_optimization_level = 3
        self.max_aux_streams = 0
        self.flagged: set[Any] = set()
        self.workspace = 0
        self.profiles: list[Any] = []
        self.cache = ITimingCache()

    def set_flag(self, flag: Any) -> None:
        self.flagged.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flagged.discard(flag)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.workspace = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return self.cache


class ITimingCache:
    def __init__(self, content: bytes = b"") -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # TensorRT's names
        self.shapes[input] = (list(min), list(opt), list(max))


def _described(value: onnx.ValueInfoProto, mode: str) -> dict[str, Any]:
    kind = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    name = {np.dtype(known): name for name, known in _NUMPY.items()}[dtype]
    return {
        "name": value.name,
        "mode": mode,
        "dtype": name,
        "shape": [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim],
    }
