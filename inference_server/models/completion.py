"""Brings a configuration and the model's file together: checks that they agree, and fills in what the configuration leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inference_server.errors import ConfigurationError
from inference_server.models.config import FILENAME, data_type
from inference_server.models.values import ConfigMessage, Configuration, TensorConfig


class Declared(Protocol):
    """A tensor as the model's file declares it."""

    @property
    def name(self) -> str:
        """Name."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Every dimension, the batch dimension included; -1 where it varies."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A configuration that says everything."""

    message: ConfigMessage
    # Rows of the largest batch; 0 when tensors have no batch dimension.
    max_batch_size: int
    # Whether the batch dimension was told from the file alone, by its first dimensions all varying.
    batch_size_guessed: bool
    # Shapes by tensor with the batch dimension, where file and configuration meet.
    shapes: Mapping[str, tuple[int, ...]]


def complete(
    name: str,
    configuration: Configuration,
    *,
    inputs: Sequence[Declared],
    outputs: Sequence[Declared],
    default_max_batch_size: int,
) -> Completed:
    """Check a configuration against the tensors of the model's file and fill in the rest, as Triton does.

    A model whose owner says nothing of batches takes them when the first dimension of every tensor varies.
    Raises `ConfigurationError` naming the tensor, what was expected and what the file has.
    """
    tensors = [*inputs, *outputs]
    guessed = configuration.max_batch_size is None
    batched = all(tensor.shape[:1] == (-1,) for tensor in tensors)
    max_batch_size = (default_max_batch_size if batched else 0) if configuration.max_batch_size is None else configuration.max_batch_size
    if max_batch_size and not batched:
        fixed = next(tensor for tensor in tensors if tensor.shape[:1] != (-1,))
        raise ConfigurationError(
            f"{name}/{FILENAME} has max_batch_size {max_batch_size}, but the first dimension of {fixed.name} {list(fixed.shape)} does not "
            "vary; set max_batch_size to 0 or export the model with a batch dimension"
        )
    missing = [tensor.name for tensor in inputs if configuration.inputs and tensor.name not in {told.name for told in configuration.inputs}]
    if missing:
        raise ConfigurationError(f"{name}/{FILENAME} leaves out the input {', '.join(missing)} of the model's file")
    shapes = _shapes(name, configuration.inputs, inputs, max_batch_size) | _shapes(name, configuration.outputs, outputs, max_batch_size)
    return Completed(
        message=_message(name, configuration, inputs, outputs, max_batch_size),
        max_batch_size=max_batch_size,
        batch_size_guessed=guessed and max_batch_size > 0,
        shapes=shapes,
    )


def _shapes(name: str, told: Sequence[TensorConfig], declared: Sequence[Declared], max_batch_size: int) -> dict[str, tuple[int, ...]]:
    files = {tensor.name: tensor for tensor in declared}
    shapes = {tensor.name: tensor.shape for tensor in declared}
    for config in told:
        if config.name not in files:
            raise ConfigurationError(f"{name}/{FILENAME} names the tensor {config.name}; the model's file has {', '.join(files)}")
        shapes[config.name] = _narrowed(name, config, files[config.name], max_batch_size)
    return shapes


def _narrowed(name: str, config: TensorConfig, file: Declared, max_batch_size: int) -> tuple[int, ...]:
    shape = (-1, *config.dims) if max_batch_size else config.dims
    if config.dtype != file.dtype:
        raise ConfigurationError(
            f"{name}/{FILENAME} gives {config.name} the type {config.dtype.name}; the model's file has {file.dtype.name}"
        )
    fits = len(shape) == len(file.shape) and all(-1 in pair or pair[0] == pair[1] for pair in zip(shape, file.shape, strict=True))
    if not fits:
        leading = "[batch, ...] with max_batch_size above 0: " if max_batch_size else ""
        raise ConfigurationError(
            f"{name}/{FILENAME} gives {config.name} the shape {list(shape)}; the model's file has {leading}{list(file.shape)}"
        )
    return tuple(max(pair) for pair in zip(shape, file.shape, strict=True))


def _message(
    name: str, configuration: Configuration, inputs: Sequence[Declared], outputs: Sequence[Declared], max_batch_size: int
) -> ConfigMessage:
    message = ConfigMessage()
    message.CopyFrom(configuration.message)
    message.name = name
    plan = configuration.filename.endswith(".plan")
    message.backend = message.backend or ("tensorrt" if plan else "onnxruntime")
    message.platform = message.platform or ("tensorrt_plan" if plan else "onnxruntime_onnx")
    message.default_model_filename = configuration.filename
    message.max_batch_size = max_batch_size
    for kept, declared in ((message.input, inputs), (message.output, outputs)):
        for tensor in () if kept else declared:
            dims = tensor.shape[1:] if max_batch_size else tensor.shape
            kept.add(name=tensor.name, data_type=data_type(tensor.dtype), dims=dims)
    if max_batch_size > 1:
        message.dynamic_batching.SetInParent()
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    if not message.instance_group:
        message.instance_group.add(name=f"{name}_0", count=1)
    return message
