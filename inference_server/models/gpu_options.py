"""What a config.pbtxt asks of the runs on a GPU: page-locked memory, CUDA graphs, and ONNX Runtime's options of CUDA."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from inference import model_config_pb2

from inference_server.errors import ConfigurationError

# Parameters of Triton's backend for ONNX Runtime, and what they may be: ONNX Runtime's provider takes the same names.
_BOOLEAN = {"0": "0", "1": "1"}
_ARENA = {"0": "kNextPowerOfTwo", "1": "kSameAsRequested"}
_SEARCH = {"0": "EXHAUSTIVE", "1": "HEURISTIC", "2": "DEFAULT"}
_CHOICES: Mapping[str, Mapping[str, str]] = {
    "arena_extend_strategy": _ARENA,
    "cudnn_conv_algo_search": _SEARCH,
    "cudnn_conv_use_max_workspace": _BOOLEAN,
    "do_copy_in_default_stream": _BOOLEAN,
}
_LIMIT = "gpu_mem_limit"
PARAMETERS = (*_CHOICES, _LIMIT)

GraphSpec = tuple[int, Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """How a model runs on a GPU."""

    # Whether inputs and outputs pass through page-locked memory.
    pinned_input: bool = True
    pinned_output: bool = True
    # Whether runs are recorded as CUDA graphs, and of which rows and shapes; all where none are named.
    graphs: bool = False
    graph_specs: tuple[GraphSpec, ...] = ()
    # Options of ONNX Runtime's CUDA provider, in its own words.
    cuda: Mapping[str, str] = field(default_factory=dict)
    # The fields and parameters that asked for any of it, by path: they mean nothing on a CPU.
    asked: tuple[str, ...] = ()


def read_gpu_options(name: str, message: model_config_pb2.ModelConfig) -> GpuOptions:
    """The options of a configuration. Raises `ConfigurationError` for what does not fit together."""
    wanted = message.optimization
    pinned = {field: getattr(wanted, field).enable for field in ("input_pinned_memory", "output_pinned_memory") if wanted.HasField(field)}
    cuda = _cuda_options(name, message)
    if wanted.cuda.graph_spec and not wanted.cuda.graphs:
        raise ConfigurationError(f"{name}/config.pbtxt has optimization.cuda.graph_spec without graphs: true; add it or take the other out")
    asked = [f"optimization.{field}" for field in pinned] + (["optimization.cuda"] if wanted.HasField("cuda") else [])
    return GpuOptions(
        pinned_input=pinned.get("input_pinned_memory", True),
        pinned_output=pinned.get("output_pinned_memory", True),
        graphs=wanted.cuda.graphs,
        graph_specs=tuple(_graph_spec(name, message.max_batch_size, spec) for spec in wanted.cuda.graph_spec),
        cuda=cuda,
        asked=(*asked, *(f"parameters.{parameter}" for parameter in cuda)),
    )


def _graph_spec(name: str, most_rows: int, spec: model_config_pb2.ModelOptimizationPolicy.Cuda.GraphSpec) -> GraphSpec:
    if not 0 <= spec.batch_size <= most_rows:
        raise ConfigurationError(
            f"{name}/config.pbtxt has a graph_spec of batch_size {spec.batch_size}; expected 0 to max_batch_size, {most_rows}"
        )
    return spec.batch_size, {each: tuple(shape.dim) for each, shape in sorted(spec.input.items())}


def _cuda_options(name: str, message: model_config_pb2.ModelConfig) -> dict[str, str]:
    given = {key: message.parameters[key].string_value for key in PARAMETERS if key in message.parameters}
    options = {key: value for key, value in given.items() if value}
    for key, value in options.items():
        if key == _LIMIT and not re.fullmatch(r"[1-9]\d*", value):
            raise ConfigurationError(f"{name}/config.pbtxt has the parameter {key} {value!r}; expected a number of bytes")
        if key in _CHOICES and value not in _CHOICES[key]:
            raise ConfigurationError(f"{name}/config.pbtxt has the parameter {key} {value!r}; expected one of {', '.join(_CHOICES[key])}")
    return {key: _CHOICES[key][value] if key in _CHOICES else value for key, value in options.items()}
