"""Reads config.pbtxt of Triton's repository layout.

What is not honoured here is refused by name, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from google.protobuf import json_format, text_format
from inference import model_config_pb2

from inference_server.errors import ConfigurationError, InvalidInput
from inference_server.models.accelerators import read_accelerators
from inference_server.models.ensembles import read_steps
from inference_server.models.gpu_options import read_gpu_options
from inference_server.models.support import unsupported
from inference_server.models.values import (
    DEFAULT_LEVEL,
    LEVELS,
    RUN_BYTES,
    RUN_ROWS,
    THREADS,
    TOLERANCE,
    WARMUP_SHAPE,
    Batching,
    ConfigMessage,
    Configuration,
    Placement,
    QueuePolicy,
    RateLimit,
    Resource,
    TensorConfig,
    Warmup,
    WarmupInput,
)

FILENAME = "config.pbtxt"
ONNX_FILENAME, PLAN_FILENAME = "model.onnx", "model.plan"
_DTYPES: Mapping[model_config_pb2.DataType.ValueType, np.dtype[Any]] = {
    model_config_pb2.TYPE_BOOL: np.dtype(bool),
    model_config_pb2.TYPE_UINT8: np.dtype(np.uint8),
    model_config_pb2.TYPE_UINT16: np.dtype(np.uint16),
    model_config_pb2.TYPE_UINT32: np.dtype(np.uint32),
    model_config_pb2.TYPE_UINT64: np.dtype(np.uint64),
    model_config_pb2.TYPE_INT8: np.dtype(np.int8),
    model_config_pb2.TYPE_INT16: np.dtype(np.int16),
    model_config_pb2.TYPE_INT32: np.dtype(np.int32),
    model_config_pb2.TYPE_INT64: np.dtype(np.int64),
    model_config_pb2.TYPE_FP16: np.dtype(np.float16),
    model_config_pb2.TYPE_FP32: np.dtype(np.float32),
    model_config_pb2.TYPE_FP64: np.dtype(np.float64),
    model_config_pb2.TYPE_BF16: np.dtype(ml_dtypes.bfloat16),
    model_config_pb2.TYPE_STRING: np.dtype(object),
}
_PLATFORMS = ("", "onnxruntime_onnx", "tensorrt_plan", "ensemble")
_BACKENDS = ("", "onnxruntime", "openvino", "tensorrt")
_KINDS = {
    model_config_pb2.ModelInstanceGroup.KIND_AUTO: "auto",
    model_config_pb2.ModelInstanceGroup.KIND_CPU: "cpu",
    model_config_pb2.ModelInstanceGroup.KIND_GPU: "gpu",
    model_config_pb2.ModelInstanceGroup.KIND_MODEL: "auto",
}


def read_configuration(folder: Path) -> Configuration:
    """The configuration of the model in a folder, whose name is the model's; a file that is not there leaves every choice to the model.

    Raises `ConfigurationError`.
    """
    path = folder / FILENAME
    message = ConfigMessage()
    try:
        text_format.Parse(path.read_text(encoding="utf-8-sig"), message)
    except FileNotFoundError:
        return _configuration(folder, ConfigMessage())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{folder.name}/{FILENAME} cannot be read: {type(error).__name__}") from error
    except text_format.ParseError as error:
        raise ConfigurationError(f"{folder.name}/{FILENAME} is not a model configuration: line and column {error}") from error
    return _configuration(folder, message)


def parse_configuration(folder: Path, text: str) -> Configuration:
    """A configuration as JSON, which stands for the folder's own. Raises `InvalidInput` when it is none, else as `read_configuration`."""
    try:
        message = json_format.Parse(text, ConfigMessage())
    except json_format.ParseError as error:
        raise InvalidInput(f"the configuration sent for model {folder.name} is not a ModelConfig as JSON: {error}") from error
    return _configuration(folder, message)


def data_type(dtype: np.dtype[Any]) -> model_config_pb2.DataType.ValueType:
    """The configuration's name of a numpy type."""
    return next(number for number, known in _DTYPES.items() if known == dtype)


def _configuration(folder: Path, message: ConfigMessage) -> Configuration:
    _check(folder.name, message)
    declared = bool(message.input or message.output or message.max_batch_size)
    return Configuration(
        message=message,
        max_batch_size=message.max_batch_size if declared else None,
        batching=_batching(folder.name, message),
        placements=_placements(message),
        inputs=tuple(_tensor(folder.name, tensor) for tensor in message.input),
        outputs=tuple(_tensor(folder.name, tensor) for tensor in message.output),
        warmups=tuple(_warmup(folder, warmup) for warmup in message.model_warmup),
        parameters=_parameters(folder.name, message),
        filename=message.default_model_filename or (PLAN_FILENAME if _is_plan(message) else ONNX_FILENAME),
        accelerators=read_accelerators(folder.name, message),
        steps=read_steps(folder.name, message),
        caches=message.response_cache.enable,
        gpu=read_gpu_options(folder.name, message),
    )


def _check(name: str, message: ConfigMessage) -> None:
    if message.name not in ("", name):
        raise ConfigurationError(f"{name}/{FILENAME} says that its name is {message.name}; it must be the folder's, {name}, or left out")
    if message.platform not in _PLATFORMS or message.backend not in _BACKENDS:
        raise ConfigurationError(
            f"{name}/{FILENAME} asks for {message.platform or message.backend}; only ONNX models and plans "
            'of TensorRT are served (platform: "onnxruntime_onnx" or "tensorrt_plan", or backend: "onnxruntime", "openvino" or "tensorrt")'
        )
    file = message.default_model_filename
    if file and (message.platform or message.backend) and file.endswith(".plan") != _is_plan(message):
        raise ConfigurationError(
            f"{name}/{FILENAME} asks for {message.platform or message.backend} with default_model_filename {file}; plans of TensorRT end "
            "in .plan, and no other files do"
        )
    if message.max_batch_size < 0:
        raise ConfigurationError(f"{name}/{FILENAME} has max_batch_size {message.max_batch_size}; expected 0 or more")
    if Path(message.default_model_filename).name != message.default_model_filename:
        raise ConfigurationError(
            f"{name}/{FILENAME} has default_model_filename {message.default_model_filename}; expected a plain file name"
        )
    refused = unsupported(message)
    if refused:
        raise ConfigurationError(f"{name}/{FILENAME} asks for {', '.join(refused)}, which this server does not do; take it out to serve")


def _is_plan(message: ConfigMessage) -> bool:
    return message.platform == "tensorrt_plan" or message.backend == "tensorrt"


def _batching(name: str, message: ConfigMessage) -> Batching:
    dynamic = message.dynamic_batching
    levels = dynamic.priority_levels or LEVELS
    default_level = dynamic.default_priority_level or (DEFAULT_LEVEL if not dynamic.priority_levels else 0)
    if not 1 <= default_level <= levels:
        raise ConfigurationError(
            f"{name}/{FILENAME} has default_priority_level {dynamic.default_priority_level}; expected 1 to priority_levels, {levels}"
        )
    sizes = tuple(sorted(dynamic.preferred_batch_size))
    if sizes and not 1 <= sizes[0] <= sizes[-1] <= message.max_batch_size:
        raise ConfigurationError(
            f"{name}/{FILENAME} has preferred_batch_size {list(sizes)}; expected sizes from 1 to max_batch_size, {message.max_batch_size}"
        )
    return Batching(
        preferred_sizes=sizes,
        max_delay_seconds=dynamic.max_queue_delay_microseconds / 1e6,
        levels=levels,
        default_level=default_level,
        policy=_policy(dynamic.default_queue_policy),
        policies={level: _policy(policy) for level, policy in dynamic.priority_queue_policy.items()},
        strict=dynamic.priority_levels > 0,
    )


def _policy(policy: model_config_pb2.ModelQueuePolicy) -> QueuePolicy:
    return QueuePolicy(
        timeout_seconds=policy.default_timeout_microseconds / 1e6 or None,
        delays=policy.timeout_action == model_config_pb2.ModelQueuePolicy.DELAY,
        max_requests=policy.max_queue_size,
    )


def _placements(message: ConfigMessage) -> tuple[Placement, ...]:
    groups = [group for group in message.instance_group if not group.passive]
    return tuple(map(_placement, groups)) or (Placement(kind="auto", count=1),)


def _placement(group: model_config_pb2.ModelInstanceGroup) -> Placement:
    limiter = group.rate_limiter
    resources = {Resource(name=resource.name, shared=getattr(resource, "global")): resource.count for resource in limiter.resources}
    return Placement(
        kind=_KINDS[group.kind],
        count=max(1, group.count),
        gpus=tuple(group.gpus),
        rate=RateLimit(resources=resources, priority=max(1, limiter.priority)),
    )


def _tensor(name: str, tensor: model_config_pb2.ModelInput | model_config_pb2.ModelOutput) -> TensorConfig:
    if not tensor.name or not tensor.dims:
        raise ConfigurationError(
            f"{name}/{FILENAME} declares the tensor {tensor.name!r} with dims {list(tensor.dims)}; a name and dims are needed"
        )
    return TensorConfig(name=tensor.name, dtype=_dtype(name, tensor.name, tensor.data_type), dims=tuple(tensor.dims))


def _dtype(name: str, tensor: str, number: model_config_pb2.DataType.ValueType) -> np.dtype[Any]:
    if number not in _DTYPES:
        known = ", ".join(model_config_pb2.DataType.Name(known) for known in _DTYPES)
        raise ConfigurationError(
            f"{name}/{FILENAME} gives {tensor} the data_type {model_config_pb2.DataType.Name(number)}; expected one of {known}"
        )
    return _DTYPES[number]


def _warmup(folder: Path, warmup: model_config_pb2.ModelWarmup) -> Warmup:
    inputs = {name: _warmup_input(folder, name, given) for name, given in warmup.inputs.items()}
    return Warmup(name=warmup.name, rows=max(1, warmup.batch_size), inputs=inputs, count=max(1, warmup.count))


def _warmup_input(folder: Path, name: str, given: model_config_pb2.ModelWarmup.Input) -> WarmupInput:
    dtype = _dtype(folder.name, name, given.data_type)
    source = given.WhichOneof("input_data_type") or "zero_data"
    if source != "input_data_file":
        return WarmupInput(dtype=dtype, dims=tuple(given.dims), content=source.removesuffix("_data"))
    if Path(given.input_data_file).name != given.input_data_file:
        raise ConfigurationError(
            f"{folder.name}/{FILENAME} has input_data_file {given.input_data_file}; expected a plain file name in its folder warmup"
        )
    return WarmupInput(dtype=dtype, dims=tuple(given.dims), content="file", file=folder / "warmup" / given.input_data_file)


def _parameters(name: str, message: ConfigMessage) -> dict[str, str]:
    parameters = {key: parameter.string_value for key, parameter in message.parameters.items()}
    for key, value in parameters.items():
        if key.startswith(WARMUP_SHAPE) and not re.fullmatch(r"[1-9]\d*([x,][1-9]\d*)*", value):
            raise ConfigurationError(f"{name}/{FILENAME} has the parameter {key} {value!r}; expected sizes such as 3,640,640")
        if key == TOLERANCE and not re.fullmatch(r"\d+(\.\d+)?", value):
            raise ConfigurationError(f"{name}/{FILENAME} has the parameter {key} {value!r}; expected a share such as 0.05")
        if key in (THREADS, RUN_BYTES) and not re.fullmatch(r"[0-9]+", value):
            raise ConfigurationError(f"{name}/{FILENAME} has the parameter {key} {value!r}; expected a number")
        if key == RUN_ROWS and not re.fullmatch(r"1(,[1-9]\d*)*", value):
            raise ConfigurationError(f"{name}/{FILENAME} has the parameter {key} {value!r}; expected numbers from 1 on, such as 1,2,4,8")
        if key in (RUN_BYTES, RUN_ROWS) and not message.max_batch_size:
            raise ConfigurationError(f"{name}/{FILENAME} has the parameter {key}, which bounds batches, and no max_batch_size of 1 or more")
    return parameters
