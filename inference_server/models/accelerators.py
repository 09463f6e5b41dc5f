"""`optimization.execution_accelerators`: the engine that the owner wants on each kind of device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inference import model_config_pb2

from inference_server.errors import ConfigurationError

# Engines by kind of device and accelerator.
_ENGINES = {("gpu", "tensorrt"): "onnxruntime-tensorrt", ("gpu", "cuda"): "onnxruntime-cuda", ("cpu", "openvino"): "openvino"}
# Values of the accelerators' parameter precision_mode, and precisions.
_PRECISIONS = {"FP32": "float32", "FP16": "float16", "BF16": "bfloat16"}
_PRECISION = "precision_mode"
# Parameters of TensorRT as Triton names them, and as ONNX Runtime's provider does; those that begin with trt_ have its names already.
_TENSORRT = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "minimum_segment_size": "trt_min_subgraph_size",
} | {
    name: name
    for name in (
        "trt_auxiliary_streams",
        "trt_builder_optimization_level",
        "trt_build_heuristics_enable",
        "trt_context_memory_sharing_enable",
        "trt_cuda_graph_enable",
        "trt_layer_norm_fp32_fallback",
        "trt_max_partition_iterations",
        "trt_max_workspace_size",
        "trt_min_subgraph_size",
        "trt_op_types_to_exclude",
        "trt_profile_max_shapes",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_sparsity_enable",
        "trt_timing_cache_enable",
    )
}
# Of ONNX Runtime's CUDA provider.
_CUDA = {
    name: name
    for name in (
        "arena_extend_strategy",
        "cudnn_conv1d_pad_to_nc1d",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "do_copy_in_default_stream",
        "enable_cuda_graph",
        "fuse_conv_bias",
        "gpu_mem_limit",
        "prefer_nhwc",
        "sdpa_kernel",
        "use_tf32",
    )
}
# As some write them, and as the runtimes do.
_BOOLEANS = {"true": "1", "false": "0"}
# What is so whatever is asked: built engines are kept, in the server's own folder.
_ALWAYS = {("trt_engine_cache_enable", "true"), ("trt_engine_cache_enable", "1")}
_OPTIONS = {"tensorrt": _TENSORRT, "cuda": _CUDA, "openvino": dict[str, str]()}


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """What instances on one kind of device run on."""

    # As the config names it.
    name: str
    # As a pin names it: an engine, maybe with a precision.
    engine: str
    # Its options, in the runtime's names.
    options: Mapping[str, str] = field(default_factory=dict)


def read_accelerators(name: str, message: model_config_pb2.ModelConfig) -> dict[str, Accelerator]:
    """Accelerators by kind of device, gpu or cpu. Raises `ConfigurationError` for those, and their parameters, that are not honoured."""
    asked = message.optimization.execution_accelerators
    by_kind = {"gpu": asked.gpu_execution_accelerator, "cpu": asked.cpu_execution_accelerator}
    accelerators = {}
    for kind, wanted in by_kind.items():
        if len(wanted) > 1:
            raise _wrong(name, kind, f"{len(wanted)} accelerators; expected one at most")
        for accelerator in wanted:
            accelerators[kind] = _accelerator(name, kind, accelerator.name, accelerator.parameters)
    return accelerators


def _accelerator(name: str, kind: str, accelerator: str, parameters: Mapping[str, str]) -> Accelerator:
    if (kind, accelerator) not in _ENGINES:
        expected = ", ".join(there for there_kind, there in _ENGINES if there_kind == kind)
        raise _wrong(name, kind, f"{accelerator or 'one without a name'}; expected {expected}")
    known = _OPTIONS[accelerator]
    parameters = {key: _BOOLEANS.get(value.lower(), value) for key, value in parameters.items() if (key, value.lower()) not in _ALWAYS}
    strange = sorted(set(parameters) - {_PRECISION, *known})
    if strange:
        takes = ", ".join([_PRECISION, *known])
        raise _wrong(name, kind, f"{accelerator} with {', '.join(strange)}, which this server does not do; it takes {takes}")
    engine = _ENGINES[kind, accelerator]
    options = {known[key]: value for key, value in parameters.items() if key in known}
    if _PRECISION not in parameters:
        return Accelerator(name=accelerator, engine=engine, options=options)
    if parameters[_PRECISION] not in _PRECISIONS:
        raise _wrong(name, kind, f"{accelerator} with {_PRECISION} {parameters[_PRECISION]!r}; expected one of {', '.join(_PRECISIONS)}")
    return Accelerator(name=accelerator, engine=f"{engine}:{_PRECISIONS[parameters[_PRECISION]]}", options=options)


def _wrong(name: str, kind: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"{name}/config.pbtxt asks in {kind}_execution_accelerator for {what}")
