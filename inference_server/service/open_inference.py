"""The Open Inference Protocol over the models that serve."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import grpc.aio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc

from inference_server.engine.port import TensorSpec
from inference_server.errors import InvalidInput
from inference_server.scheduler.port import InferenceRequest
from inference_server.scheduler.registry import ServingModels
from inference_server.scheduler.status import ModelState
from inference_server.service.caller import caller_of
from inference_server.service.lifecycle import Lifecycle
from inference_server.service.tensors import datatype_of, decode_inputs, encode_outputs, is_slow_to_decode

Context = grpc.aio.ServicerContext[Any, Any]

# Parts of the protocol beyond its core that this server speaks, as Triton names them.
EXTENSIONS = ("model_configuration", "model_repository", "binary_tensor_data", "schedule_policy", "parameters")

# Beyond this, decoding element by element would hold the event loop up.
_MOST_BYTES_ON_LOOP = 64 * 1024


class OpenInferenceServicer(wire_grpc.GRPCInferenceServiceServicer):
    """Server, model and repository calls. What it does not override answers UNIMPLEMENTED."""

    def __init__(self, *, models: ServingModels, lifecycle: Lifecycle, version: str) -> None:
        self._models = models
        self._lifecycle = lifecycle
        self._version = version

    async def ServerLive(self, request: wire.ServerLiveRequest, context: Context) -> wire.ServerLiveResponse:  # noqa: N802
        """Live whenever it answers."""
        return wire.ServerLiveResponse(live=True)

    async def ServerReady(self, request: wire.ServerReadyRequest, context: Context) -> wire.ServerReadyResponse:  # noqa: N802
        """Ready once the models were loaded and until the server leaves."""
        return wire.ServerReadyResponse(ready=self._lifecycle.ready)

    async def ModelReady(self, request: wire.ModelReadyRequest, context: Context) -> wire.ModelReadyResponse:  # noqa: N802
        """Whether a model would answer now."""
        return wire.ModelReadyResponse(ready=self._models.is_ready(request.name, request.version))

    async def ServerMetadata(self, request: wire.ServerMetadataRequest, context: Context) -> wire.ServerMetadataResponse:  # noqa: N802
        """Name, version, extensions."""
        return wire.ServerMetadataResponse(name="lamina", version=self._version, extensions=EXTENSIONS)

    async def ModelMetadata(self, request: wire.ModelMetadataRequest, context: Context) -> wire.ModelMetadataResponse:  # noqa: N802
        """Tensors and versions of a model; its platform is the engine that runs it, as engine:precision."""
        facts = self._models.facts(request.name, request.version)
        return wire.ModelMetadataResponse(
            name=facts.name,
            versions=self._models.versions(request.name),
            platform=facts.engine,
            inputs=map(_tensor_metadata, facts.inputs),
            outputs=map(_tensor_metadata, facts.outputs),
        )

    async def ModelConfig(self, request: wire.ModelConfigRequest, context: Context) -> wire.ModelConfigResponse:  # noqa: N802
        """The configuration, defaults filled in."""
        return wire.ModelConfigResponse(config=self._models.config(request.name, request.version))

    async def RepositoryIndex(self, request: wire.RepositoryIndexRequest, context: Context) -> wire.RepositoryIndexResponse:  # noqa: N802
        """What the repository holds, and why a model does not serve."""
        entries = [entry for entry in self._models.index() if entry.state is ModelState.READY or not request.ready]
        return wire.RepositoryIndexResponse(
            models=(
                wire.RepositoryIndexResponse.ModelIndex(
                    name=entry.name, version=entry.version, state=entry.state.value, reason=entry.reason
                )
                for entry in entries
            )
        )

    async def ModelInfer(self, request: wire.ModelInferRequest, context: Context) -> wire.ModelInferResponse:  # noqa: N802
        """Run a model once. Outputs are raw bytes; the response's parameters tell engine and times."""
        _refuse_unsupported(request)
        slow = is_slow_to_decode(request) and request.ByteSize() > _MOST_BYTES_ON_LOOP
        inputs = await asyncio.to_thread(decode_inputs, request) if slow else decode_inputs(request)
        timeout = _whole_number(request.parameters, "timeout")
        answer = await self._models.infer(
            InferenceRequest(
                model=request.model_name,
                version=request.model_version,
                inputs=inputs,
                outputs=tuple(output.name for output in request.outputs),
                caller=caller_of(context, _whole_number(request.parameters, "priority"), timeout / 1e6 if timeout else None),
            )
        )
        response = wire.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=request.id)
        response.parameters["engine"].string_param = answer.engine
        response.parameters["queue_microseconds"].int64_param = round(answer.queue_seconds * 1e6)
        response.parameters["compute_microseconds"].int64_param = round(answer.compute_seconds * 1e6)
        encode_outputs(response, answer.outputs)
        return response


def _tensor_metadata(spec: TensorSpec) -> wire.ModelMetadataResponse.TensorMetadata:
    return wire.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=datatype_of(spec.dtype), shape=spec.shape)


def _whole_number(parameters: Mapping[str, wire.InferParameter], name: str) -> int:
    """A parameter's value, 0 when it was not sent. Raises `InvalidInput`."""
    if name not in parameters:
        return 0
    parameter = parameters[name]
    chosen = parameter.WhichOneof("parameter_choice")
    if chosen not in ("int64_param", "uint64_param") or getattr(parameter, chosen) < 0:
        raise InvalidInput(f"parameter {name} must be a whole number that is not negative, as int64_param or uint64_param.")
    return int(getattr(parameter, chosen))


def _refuse_unsupported(request: wire.ModelInferRequest) -> None:
    """Raise for options that would change the answer and are not spoken here."""
    tensors: Iterable[wire.ModelInferRequest.InferInputTensor | wire.ModelInferRequest.InferRequestedOutputTensor]
    tensors = (*request.inputs, *request.outputs)
    for tensor in tensors:
        for option, instead in _UNSUPPORTED.items():
            if option in tensor.parameters:
                raise InvalidInput(f"tensor {tensor.name} asks for {option}, which this server does not offer; {instead}.")


_UNSUPPORTED = {
    "shared_memory_region": "send and receive the elements in the messages",
    "classification": "take the whole output and sort it",
}
