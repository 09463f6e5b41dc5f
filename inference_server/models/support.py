"""Which fields of a config.pbtxt are honoured here: every other field that is set is refused by its name, so that none is ignored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from inference_server.models.values import ConfigMessage

# By path; a * stands for whatever lies below.
_HONOURED = frozenset(
    {
        "name",
        "platform",
        "backend",
        "max_batch_size",
        "default_model_filename",
        "version_policy.*",
        "input.name",
        "input.data_type",
        "input.dims",
        # Tells what the dimensions mean, and changes none of them.
        "input.format",
        "output.name",
        "output.data_type",
        "output.dims",
        "output.label_filename",
        "dynamic_batching.preferred_batch_size",
        "dynamic_batching.max_queue_delay_microseconds",
        "dynamic_batching.priority_levels",
        "dynamic_batching.default_priority_level",
        "dynamic_batching.default_queue_policy.*",
        "dynamic_batching.priority_queue_policy.*",
        "instance_group.name",
        "instance_group.kind",
        "instance_group.count",
        "instance_group.gpus",
        "instance_group.passive",
        "instance_group.rate_limiter.*",
        "optimization.execution_accelerators.*",
        # On a GPU; see `gpu_options` and `placement` for where they are refused.
        "optimization.cuda.graphs",
        "optimization.cuda.graph_spec.batch_size",
        "optimization.cuda.graph_spec.input.*",
        "optimization.input_pinned_memory.*",
        "optimization.output_pinned_memory.*",
        "ensemble_scheduling.step.model_name",
        "ensemble_scheduling.step.model_version",
        "ensemble_scheduling.step.input_map.*",
        "ensemble_scheduling.step.output_map.*",
        "parameters.*",
        "model_warmup.*",
        "response_cache.enable",
    }
)
# Of these the answer is no whatever they hold, so that the name alone says enough.
_WHOLE = frozenset(
    {
        "sequence_batching",
        "batch_input",
        "batch_output",
        "input.reshape",
        "output.reshape",
        "model_operations",
        "model_repository_agents",
        "model_metrics",
    }
)
# What a graph of several models does not take: each of them has its own.
_NOT_OF_ENSEMBLES = frozenset(
    {"dynamic_batching", "instance_group", "optimization", "model_warmup", "response_cache", "default_model_filename", "parameters"}
)
# Parameters that Triton's backend for ONNX Runtime knows and that mean something else, or nothing, here; None allows any value.
_RUNTIME_PARAMETERS: dict[str, str | None] = {
    "execution_mode": "0",
    "inter_op_thread_count": None,
    "enable_mem_pattern": "0",
    "enable_mem_arena": "1",
    "memory.enable_memory_arena_shrinkage": "",
    "use_device_allocator_for_initializers": "",
}


def unsupported(message: ConfigMessage) -> list[str]:
    """The fields that are set and not honoured, by path."""
    if message.platform == "ensemble" or message.HasField("ensemble_scheduling"):
        more = [field.name for field, _ in message.ListFields() if field.name in _NOT_OF_ENSEMBLES]
    else:
        more = [f"parameters.{key}" for key, parameter in message.parameters.items() if not _is_neutral(key, parameter.string_value)]
    paths = [path.removesuffix(".*") for path in _set_paths(message, "") if not _is_honoured(path)]
    return list(dict.fromkeys([*paths, *more]))


def _is_neutral(key: str, value: str) -> bool:
    if key.startswith(("session.", "optimization.")):
        return False
    allowed = _RUNTIME_PARAMETERS.get(key)
    return allowed is None or value == allowed


def _is_honoured(path: str) -> bool:
    parts = path.split(".")
    return path in _HONOURED or any(".".join([*parts[:depth], "*"]) in _HONOURED for depth in range(1, len(parts)))


def _set_paths(message: Message, prefix: str) -> Iterator[str]:
    """Every field that is set, down to those that hold no messages."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if path in _WHOLE or not field.message_type or _is_map(field):
            yield path + (".*" if _is_map(field) else "")
        else:
            for part in _messages(field, value):
                yield from _set_paths(part, f"{path}.")


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _messages(field: FieldDescriptor, value: Any) -> list[Message]:
    return list(value) if field.is_repeated else [value]
