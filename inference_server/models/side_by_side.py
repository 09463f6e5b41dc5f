"""What `lamina.side_by_side_rows` goes with."""

from __future__ import annotations

from inference import model_config_pb2

from inference_server.errors import ConfigurationError
from inference_server.models.values import SIDE_BY_SIDE_ROWS, ConfigMessage


def check_side_by_side(name: str, message: ConfigMessage) -> None:
    """Raises `ConfigurationError` for a value that is no number of rows, and beside what bounds batches or instances in another way."""
    if SIDE_BY_SIDE_ROWS not in message.parameters:
        return
    value = message.parameters[SIDE_BY_SIDE_ROWS].string_value
    told = f"{name}/config.pbtxt has the parameter {SIDE_BY_SIDE_ROWS}"
    if not value.isdigit() or not 1 <= int(value) <= message.max_batch_size:
        raise ConfigurationError(f"{told} {value!r}; expected rows of a batch, from 1 to max_batch_size, which is {message.max_batch_size}")
    if against := ", ".join(_against(message)):
        raise ConfigurationError(f"{told} and {against}; take one of them out")


def _against(message: ConfigMessage) -> list[str]:
    groups = [group for group in message.instance_group if not group.passive]
    present = {
        "dynamic_batching.preferred_batch_size": message.dynamic_batching.preferred_batch_size,
        "dynamic_batching.max_queue_delay_microseconds": message.dynamic_batching.max_queue_delay_microseconds,
        "ensemble_scheduling": message.HasField("ensemble_scheduling"),
        "more than one instance": sum(max(1, group.count) for group in groups) > 1,
        "an instance of KIND_GPU": any(group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU for group in groups),
        "instance_group.rate_limiter.resources": any(group.rate_limiter.resources for group in groups),
    }
    return [field for field, there in present.items() if there]
