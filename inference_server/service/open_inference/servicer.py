"""The Open Inference Protocol over the models that serve, with Triton's extensions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio
from inference import grpc_service_pb2 as wire
from inference import grpc_service_pb2_grpc as wire_grpc

from inference_server.engine.port import TensorSpec
from inference_server.errors import AlreadyExists
from inference_server.scheduler.port import Caller
from inference_server.scheduler.registry import ServingModels
from inference_server.scheduler.status import ModelState
from inference_server.service.caller import caller_of
from inference_server.service.http2.context import CallContext
from inference_server.service.lifecycle import BytesInFlight, Lifecycle
from inference_server.service.open_inference.control import Control
from inference_server.service.open_inference.cuda_memory import CudaMemory, CudaRegionFacts, SharedRegions
from inference_server.service.open_inference.infer_calls import InferCalls
from inference_server.service.open_inference.parameters import RequestOptions, check_version
from inference_server.service.open_inference.shared_memory import RegionFacts, SharedMemory
from inference_server.service.open_inference.statistics import statistics_message
from inference_server.service.open_inference.streaming import InferStream
from inference_server.service.open_inference.tensors import datatype_of
from inference_server.service.open_inference.wire_format import (
    InferRequest,
    InferResponse,
    StreamResponse,
    parse_request,
    serialize_response,
    serialize_stream_response,
)
from inference_server.service.tracing import RequestTraces

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = "inference.GRPCInferenceService"

# Parts of the protocol beyond its core that this server speaks, as Triton names them.
_EXTENSIONS = (
    "classification",
    "sequence",
    "model_repository",
    "model_configuration",
    "schedule_policy",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)

# Metadata by which a client asks that the first error of a stream ends it.
_ENDS_AT_ERRORS = ("triton_grpc_error", "true")

# Metadata of ModelReady: building, built or failed, where engines are built for the model.
_BUILD_STATE = "lamina-engine-build"

# The protocol's words for states that it has none of its own for.
_STATES = {ModelState.UNLOADED: "UNAVAILABLE", ModelState.UNKNOWN: ""}


@dataclass(frozen=True, kw_only=True)
class ServerParts:
    """What the protocol is spoken over."""

    models: ServingModels
    lifecycle: Lifecycle
    bytes_in_flight: BytesInFlight
    memory: SharedMemory
    cuda_memory: CudaMemory
    control: Control
    # Of the server.
    version: str
    # Bytes of one request's inputs in shared memory.
    most_shared_bytes: int
    # Requests of one stream that are read and not yet answered.
    most_stream_requests: int
    # Told the limit that a request of a stream passed.
    refused: Callable[[str], None] = lambda limit: None
    # Told the limit that keeps the next request of a stream waiting.
    waits: Callable[[str], None] = lambda limit: None
    # Of the requests of streams; None where no traces are sent.
    traces: RequestTraces | None = None


class OpenInferenceServicer(wire_grpc.GRPCInferenceServiceServicer):
    """All calls of the protocol; ModelInfer and ModelStreamInfer read and write the messages of `wire_format`."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts
        self._models = parts.models
        regions = SharedRegions(parts.memory, parts.cuda_memory)
        self._calls = InferCalls(parts.models, regions, parts.bytes_in_flight, most_shared_bytes=parts.most_shared_bytes)

    async def ServerLive(self, request: wire.ServerLiveRequest, context: Context) -> wire.ServerLiveResponse:  # noqa: N802
        """Live whenever it answers."""
        return wire.ServerLiveResponse(live=True)

    async def ServerReady(self, request: wire.ServerReadyRequest, context: Context) -> wire.ServerReadyResponse:  # noqa: N802
        """Ready once the models were loaded and until the server leaves."""
        return wire.ServerReadyResponse(ready=self._parts.lifecycle.ready)

    async def ModelReady(self, request: wire.ModelReadyRequest, context: Context) -> wire.ModelReadyResponse:  # noqa: N802
        """Whether a model would answer now; how far its engines are built is told beside it."""
        building = self._models.builds.state(request.name, request.version)
        if building:
            context.set_trailing_metadata(((_BUILD_STATE, building),))
        return wire.ModelReadyResponse(ready=self._models.is_ready(request.name, check_version(request.version)))

    async def ServerMetadata(self, request: wire.ServerMetadataRequest, context: Context) -> wire.ServerMetadataResponse:  # noqa: N802
        """Name, version, extensions."""
        shared = {"system_shared_memory": self._parts.memory.enabled, "cuda_shared_memory": self._parts.cuda_memory.enabled}
        extensions = (*_EXTENSIONS, *(name for name, enabled in shared.items() if enabled))
        return wire.ServerMetadataResponse(name="lamina", version=self._parts.version, extensions=extensions)

    async def ModelMetadata(self, request: wire.ModelMetadataRequest, context: Context) -> wire.ModelMetadataResponse:  # noqa: N802
        """Tensors and versions of a model; its platform is the engine that runs it, as engine:precision."""
        facts = self._models.facts(request.name, check_version(request.version))
        return wire.ModelMetadataResponse(
            name=facts.name,
            versions=self._models.versions(request.name),
            platform=facts.engine,
            inputs=map(_tensor_metadata, facts.inputs),
            outputs=map(_tensor_metadata, facts.outputs),
        )

    async def ModelConfig(self, request: wire.ModelConfigRequest, context: Context) -> wire.ModelConfigResponse:  # noqa: N802
        """The configuration, defaults filled in."""
        return wire.ModelConfigResponse(config=self._models.config(request.name, check_version(request.version)))

    async def ModelStatistics(  # noqa: N802
        self, request: wire.ModelStatisticsRequest, context: Context
    ) -> wire.ModelStatisticsResponse:
        """Counts and times since each version began to serve."""
        statistics = self._models.statistics(request.name, check_version(request.version))
        return wire.ModelStatisticsResponse(model_stats=map(statistics_message, statistics))

    async def ModelInfer(self, request: InferRequest, context: Context) -> InferResponse:  # type: ignore[override]  # noqa: N802
        """Run a model once."""
        return await self._calls.infer(request, partial(_caller, context))

    async def ModelStreamInfer(  # type: ignore[override]  # noqa: N802
        self, request_iterator: AsyncGenerator[InferRequest], context: CallContext
    ) -> AsyncGenerator[StreamResponse]:
        """Run models, many requests at a time."""
        stream = InferStream(
            partial(self._infer_of_stream, context),
            lifecycle=self._parts.lifecycle,
            bytes_in_flight=self._parts.bytes_in_flight,
            most_requests=self._parts.most_stream_requests,
            refused=self._parts.refused,
            waits=self._parts.waits,
            ends_at_errors=_ENDS_AT_ERRORS in [(key, value) for key, value in context.invocation_metadata() or ()],
        )
        async with aclosing(stream.responses(request_iterator)) as responses:
            async for response in responses:
                yield response

    async def _infer_of_stream(self, context: CallContext, request: InferRequest) -> InferResponse:
        infer = partial(self._calls.infer, request, partial(_caller, context))
        return await (self._parts.traces.of_stream(request, context, infer) if self._parts.traces else infer())

    async def RepositoryIndex(self, request: wire.RepositoryIndexRequest, context: Context) -> wire.RepositoryIndexResponse:  # noqa: N802
        """What the repository holds, and why a model does not serve."""
        entries = [entry for entry in await self._models.listing() if entry.state is ModelState.READY or not request.ready]
        return wire.RepositoryIndexResponse(
            models=(
                wire.RepositoryIndexResponse.ModelIndex(
                    name=entry.name, version=entry.version, state=_STATES.get(entry.state, entry.state.value), reason=entry.reason
                )
                for entry in entries
            )
        )

    async def RepositoryModelLoad(  # noqa: N802
        self, request: wire.RepositoryModelLoadRequest, context: Context
    ) -> wire.RepositoryModelLoadResponse:
        """Load a model, or load it anew while the old one serves; returns when it serves."""
        await self._parts.control.load(request.model_name, request.repository_name, request.parameters)
        return wire.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(  # noqa: N802
        self, request: wire.RepositoryModelUnloadRequest, context: Context
    ) -> wire.RepositoryModelUnloadResponse:
        """Take a model out of service; what it was asked before is still answered."""
        await self._parts.control.unload(request.model_name, request.repository_name, request.parameters)
        return wire.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(  # noqa: N802
        self, request: wire.SystemSharedMemoryStatusRequest, context: Context
    ) -> wire.SystemSharedMemoryStatusResponse:
        """The registered regions."""
        regions = self._parts.memory.status(request.name)
        return wire.SystemSharedMemoryStatusResponse(regions={name: _region_status(facts) for name, facts in regions.items()})

    async def SystemSharedMemoryRegister(  # noqa: N802
        self, request: wire.SystemSharedMemoryRegisterRequest, context: Context
    ) -> wire.SystemSharedMemoryRegisterResponse:
        """Make a region known."""
        if self._parts.cuda_memory.find(request.name):
            raise AlreadyExists(f"a CUDA shared memory region {request.name} is registered already; unregister it, or take another name.")
        self._parts.memory.register(request.name, request.key, offset=request.offset, size=request.byte_size)
        return wire.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(  # noqa: N802
        self, request: wire.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> wire.SystemSharedMemoryUnregisterResponse:
        """Forget a region, or all."""
        self._parts.memory.unregister(request.name)
        return wire.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(  # noqa: N802
        self, request: wire.CudaSharedMemoryStatusRequest, context: Context
    ) -> wire.CudaSharedMemoryStatusResponse:
        """The registered regions, without their handles."""
        regions = self._parts.cuda_memory.status(request.name)
        return wire.CudaSharedMemoryStatusResponse(regions={name: _cuda_region_status(facts) for name, facts in regions.items()})

    async def CudaSharedMemoryRegister(  # noqa: N802
        self, request: wire.CudaSharedMemoryRegisterRequest, context: Context
    ) -> wire.CudaSharedMemoryRegisterResponse:
        """Make a region known."""
        if request.name in self._parts.memory.status():
            raise AlreadyExists(f"a shared memory region {request.name} is registered already; unregister it, or take another name.")
        register = self._parts.cuda_memory.register
        await asyncio.to_thread(register, request.name, request.raw_handle, device=request.device_id, size=request.byte_size)
        return wire.CudaSharedMemoryRegisterResponse()

    async def CudaSharedMemoryUnregister(  # noqa: N802
        self, request: wire.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> wire.CudaSharedMemoryUnregisterResponse:
        """Forget a region, or all; clients call this when they clean up, so that it is never refused."""
        await asyncio.to_thread(self._parts.cuda_memory.unregister, request.name)
        return wire.CudaSharedMemoryUnregisterResponse()

    async def TraceSetting(self, request: wire.TraceSettingRequest, context: Context) -> wire.TraceSettingResponse:  # noqa: N802
        """Read the trace settings, and change those that are sent."""
        changes: Mapping[str, Sequence[str]] = {name: setting.value for name, setting in request.settings.items()}
        return self._parts.control.trace_settings(request.model_name, changes)

    async def LogSettings(self, request: wire.LogSettingsRequest, context: Context) -> wire.LogSettingsResponse:  # noqa: N802
        """Read the log settings, and change those that are sent."""
        return self._parts.control.log_settings(request.settings)


def add_to_server(servicer: OpenInferenceServicer, server: Any) -> None:
    """Add the servicer with its own readers and writers of the messages that carry tensors."""
    generated = _Generated()
    wire_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, generated)  # type: ignore[arg-type]
    make_one: Any = grpc.unary_unary_rpc_method_handler
    make_many: Any = grpc.stream_stream_rpc_method_handler
    own = {
        "ModelInfer": make_one(servicer.ModelInfer, parse_request, serialize_response),
        "ModelStreamInfer": make_many(servicer.ModelStreamInfer, parse_request, serialize_stream_response),
    }
    server.add_registered_method_handlers(SERVICE, generated.handlers | own)


class _Generated:
    """Stands for a server before the generated code, to learn its handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same handlers in another form."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """The handlers by method."""
        self.handlers = handlers


def _caller(context: Context, options: RequestOptions) -> Caller:
    return caller_of(context, options.priority, options.timeout_seconds)


def _tensor_metadata(spec: TensorSpec) -> wire.ModelMetadataResponse.TensorMetadata:
    return wire.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=datatype_of(spec.dtype), shape=spec.shape)


def _region_status(facts: RegionFacts) -> wire.SystemSharedMemoryStatusResponse.RegionStatus:
    return wire.SystemSharedMemoryStatusResponse.RegionStatus(name=facts.name, key=facts.key, offset=facts.offset, byte_size=facts.size)


def _cuda_region_status(facts: CudaRegionFacts) -> wire.CudaSharedMemoryStatusResponse.RegionStatus:
    return wire.CudaSharedMemoryStatusResponse.RegionStatus(name=facts.name, device_id=facts.device, byte_size=facts.size)
