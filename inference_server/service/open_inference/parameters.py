"""Parameters of requests and tensors, held to the types that Triton takes.

Source: "Parameters Extension" (https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_parameters.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inference import grpc_service_pb2 as wire

from inference_server.errors import InvalidInput

Parameters = Mapping[str, wire.InferParameter]

_RESERVED = "triton_"
_EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"
_WHOLE = ("int64_param", "uint64_param")
# Of the parameters that Triton knows, the types that it takes; sequences are accepted and mean nothing to the models served here.
_TYPES = {
    "priority": _WHOLE,
    "timeout": ("int64_param",),
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    _EMPTY_FINAL_RESPONSE: ("bool_param",),
}
# Of all others, which nobody reads.
_ANY = ("int64_param", "bool_param", "string_param", "double_param")


@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """What a request's parameters ask for."""

    # Lower goes first; 0 for the model's default.
    priority: int
    # Seconds after which nobody wants the answer; None for never.
    timeout_seconds: float | None


_NO_OPTIONS = RequestOptions(priority=0, timeout_seconds=None)


@dataclass(frozen=True, kw_only=True)
class SharedPart:
    """The part of a shared memory region that holds a tensor."""

    region: str
    offset: int
    size: int


def request_options(parameters: Parameters) -> RequestOptions:
    """Read a request's parameters; those that nobody knows mean nothing. Raises `InvalidInput`."""
    if not parameters:
        return _NO_OPTIONS
    for name, value in parameters.items():
        if name.startswith(_RESERVED) and name not in _TYPES:
            raise InvalidInput(f"parameter {name} is unknown; of those that begin with {_RESERVED} there is {_EMPTY_FINAL_RESPONSE} only.")
        _check_type(name, value, _TYPES.get(name, _ANY))
    timeout = _whole_number(parameters, "timeout")
    return RequestOptions(priority=_whole_number(parameters, "priority"), timeout_seconds=timeout / 1e6 if timeout else None)


def check_version(version: str) -> str:
    """A model's version as it was sent. Raises `InvalidInput` for one that is no int64, as Triton does; 0 is not found."""
    if version and not (version.isascii() and version.isdigit() and len(version) < 20 and int(version) < 2**63):
        raise InvalidInput(f"the version {version!r} is none; expected a whole number above 0, or nothing for the newest.")
    return version


def shared_part(tensor: str, parameters: Parameters) -> SharedPart | None:
    """Where in shared memory a tensor lies; None when it does not. Raises `InvalidInput`."""
    if "shared_memory_region" not in parameters:
        return None
    region = parameters["shared_memory_region"]
    _check_type("shared_memory_region", region, ("string_param",))
    if "shared_memory_byte_size" not in parameters:
        raise InvalidInput(f"tensor {tensor} has a shared_memory_region and no shared_memory_byte_size; send both.")
    for name in ("shared_memory_byte_size", "shared_memory_offset"):
        if name in parameters:
            _check_type(name, parameters[name], ("int64_param",))
    return SharedPart(
        region=region.string_param,
        offset=_whole_number(parameters, "shared_memory_offset"),
        size=_whole_number(parameters, "shared_memory_byte_size"),
    )


def classes_wanted(output: str, parameters: Parameters) -> int:
    """How many of an output's best classes are wanted rather than all of it; 0 when it is wanted whole. Raises `InvalidInput`."""
    if "classification" not in parameters:
        return 0
    _check_type("classification", parameters["classification"], ("int64_param",))
    count = parameters["classification"].int64_param
    if count < 1:
        raise InvalidInput(f"output {output} asks for {count} classes; expected at least 1.")
    if "shared_memory_region" in parameters:
        raise InvalidInput(f"output {output} asks for both classification and shared_memory_region; ask for one of them.")
    return int(count)


def _check_type(name: str, value: wire.InferParameter, expected: tuple[str, ...]) -> None:
    if value.WhichOneof("parameter_choice") not in expected:
        raise InvalidInput(f"parameter {name} is of a type that it cannot have; send it as {' or '.join(expected)}.")


def _whole_number(parameters: Parameters, name: str) -> int:
    """A parameter's value, 0 when it was not sent."""
    if name not in parameters:
        return 0
    value = int(getattr(parameters[name], str(parameters[name].WhichOneof("parameter_choice"))))
    if value < 0:
        raise InvalidInput(f"parameter {name} is {value}; expected a number that is not negative.")
    return value
