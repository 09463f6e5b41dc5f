"""One run of one model, from the message that asks for it to the message that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from inference import grpc_service_pb2 as wire

from inference_server.engine.port import Tensor
from inference_server.errors import InvalidTensor
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.scheduler.registry import ServingModels
from inference_server.service.lifecycle import BytesInFlight
from inference_server.service.open_inference.classification import best_classes
from inference_server.service.open_inference.cuda_memory import AnyRegion, SystemRegions
from inference_server.service.open_inference.parameters import (
    RequestOptions,
    SharedPart,
    check_version,
    classes_wanted,
    request_options,
    shared_part,
)
from inference_server.service.open_inference.tensors import datatype_of, decode_inputs, encode, is_slow_to_decode, is_slow_to_encode
from inference_server.service.open_inference.wire_format import Elements, InferRequest, InferResponse

# Beyond this, decoding element by element would hold the event loop up, as would copying.
_MOST_BYTES_ON_LOOP = 64 * 1024
_MOST_SCORES_ON_LOOP = 1024

_Tensor = wire.ModelInferRequest.InferInputTensor | wire.ModelInferRequest.InferRequestedOutputTensor


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A part of a region that was found and lies within it."""

    region: AnyRegion
    part: SharedPart


_NOWHERE: Mapping[str, _Place] = MappingProxyType({})


class InferCalls:
    """Runs models for ModelInfer and ModelStreamInfer."""

    def __init__(self, models: ServingModels, memory: SystemRegions, bytes_in_flight: BytesInFlight, *, most_shared_bytes: int) -> None:
        """`most_shared_bytes`: of one request's inputs in shared memory, as the limit of messages bounds the others."""
        self._models = models
        self._memory = memory
        self._bytes = bytes_in_flight
        self._most_shared_bytes = most_shared_bytes

    async def infer(self, request: InferRequest, caller: Callable[[RequestOptions], Caller]) -> InferResponse:
        """Run a model once. Outputs are raw bytes; the response's parameters tell engine and times. Raises as `Inference.infer` does."""
        message = request.message
        check_version(message.model_version)
        facts = self._models.facts(message.model_name, message.model_version)
        options = request_options(message.parameters)
        given, wanted, classes = _NOWHERE, _NOWHERE, dict.fromkeys((output.name for output in message.outputs), 0)
        if request.has_extensions:
            classes = {output.name: classes_wanted(output.name, output.parameters) for output in message.outputs}
            given, wanted = self._places(message.inputs), self._places(message.outputs)
        with self._holding(given):
            answer = await self._models.infer(
                InferenceRequest(
                    model=message.model_name,
                    version=message.model_version,
                    inputs=await _inputs(request, given),
                    outputs=tuple(classes),
                    caller=caller(options),
                )
            )
        outputs = dict(answer.outputs)
        for name, count in classes.items():
            if count:
                labels = self._models.labels(answer.model, answer.version).get(name, ())
                outputs[name] = await _best_classes(name, outputs[name], count, batched=facts.max_batch_size > 0, labels=labels)
        return await _response(message, answer, outputs, wanted)

    def _places(self, tensors: Iterable[_Tensor]) -> dict[str, _Place]:
        """Where the tensors lie that are in shared memory."""
        parts = {tensor.name: part for tensor in tensors if (part := shared_part(tensor.name, tensor.parameters)) is not None}
        places = {name: _Place(region=self._memory.region(part.region), part=part) for name, part in parts.items()}
        for place in places.values():
            place.region.check(place.part.offset, place.part.size)
        return places

    def _holding(self, places: Mapping[str, _Place]) -> AbstractContextManager[None]:
        """Count the copies of inputs in shared memory as the bytes of messages are counted. Raises `InvalidTensor` or `Overloaded`."""
        size = sum(place.part.size for place in places.values())
        if size > self._most_shared_bytes:
            raise InvalidTensor(
                f"the inputs in shared memory are {size} bytes; at most {self._most_shared_bytes} are taken, as of a message.",
                limit="message_bytes",
            )
        return self._bytes.holding(size) if size else nullcontext()


async def _inputs(request: InferRequest, places: Mapping[str, _Place]) -> dict[str, Tensor]:
    def decode() -> dict[str, Tensor]:
        shared: dict[str, Elements] = {name: place.region.read(place.part.offset, place.part.size) for name, place in places.items()}
        return decode_inputs(request.message, request.raw, shared)

    shared_bytes = sum(place.part.size for place in places.values())
    slow = shared_bytes > _MOST_BYTES_ON_LOOP or (request.size > _MOST_BYTES_ON_LOOP and is_slow_to_decode(request.message))
    return await asyncio.to_thread(decode) if slow else decode()


async def _best_classes(name: str, scores: Tensor, count: int, *, batched: bool, labels: Sequence[str]) -> Tensor:
    sort = partial(best_classes, name, scores, count=count, batched=batched, labels=labels)
    return await asyncio.to_thread(sort) if scores.size > _MOST_SCORES_ON_LOOP else sort()


async def _response(
    message: wire.ModelInferRequest, answer: InferenceResponse, outputs: Mapping[str, Tensor], places: Mapping[str, _Place]
) -> InferResponse:
    response = InferResponse(message=wire.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=message.id))
    response.message.parameters["engine"].string_param = answer.engine
    if answer.fallback:
        response.message.parameters["lamina_fallback"].string_param = answer.fallback
    response.message.parameters["queue_microseconds"].int64_param = round(answer.queue_seconds * 1e6)
    response.message.parameters["compute_microseconds"].int64_param = round(answer.compute_seconds * 1e6)
    for name, tensor in outputs.items():
        elements = await asyncio.to_thread(encode, tensor) if is_slow_to_encode(tensor) else encode(tensor)
        described = response.message.outputs.add(name=name, datatype=datatype_of(tensor.dtype), shape=tensor.shape)
        if name in places:
            await _put(places[name], described, elements)
            elements = b""
        response.raw.append(elements)
    return response


async def _put(place: _Place, described: wire.ModelInferResponse.InferOutputTensor, elements: Elements) -> None:
    """Write an output into shared memory. Raises `InvalidTensor` when it is larger than its place."""
    part = place.part
    if len(elements) > part.size:
        raise InvalidTensor(
            f"output {described.name} takes {len(elements)} bytes; its shared_memory_byte_size is {part.size}. Make it larger."
        )
    if len(elements) > _MOST_BYTES_ON_LOOP:
        await asyncio.to_thread(place.region.write, part.offset, elements)
    else:
        place.region.write(part.offset, elements)
    described.parameters["shared_memory_region"].string_param = part.region
    described.parameters["shared_memory_byte_size"].int64_param = len(elements)
    if part.offset:
        described.parameters["shared_memory_offset"].int64_param = part.offset
