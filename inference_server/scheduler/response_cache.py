"""Answers that are kept, for requests that are equal to the last bit."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from inference_server.engine.port import Tensor
from inference_server.scheduler.metrics.statistics import Statistics
from inference_server.scheduler.port import InferenceRequest, InferenceResponse
from inference_server.scheduler.validation import size_of

# Beyond this, hashing would hold the event loop up.
_MOST_BYTES_ON_LOOP = 64 * 1024
Infer = Callable[[InferenceRequest], Awaitable[InferenceResponse]]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    response: InferenceResponse
    size: int


class ResponseCache:
    """The answers of all models that keep theirs, bounded in bytes; those that were not asked for the longest go first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._models = itertools.count()
        self.bytes = 0

    def of_model(self) -> ModelCache:
        """The answers of one loading of a model, which the next loading does not see."""
        return ModelCache(self, next(self._models))

    def get(self, key: bytes) -> InferenceResponse | None:
        """The answer to a request; its tensors are read-only."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept.response

    def put(self, key: bytes, response: InferenceResponse) -> None:
        """Keep an answer, unless it is larger than all that may be kept."""
        size = sum(map(size_of, response.outputs.values()))
        if size > self._most_bytes or key in self._kept:
            return
        outputs = {name: _own(tensor) for name, tensor in response.outputs.items()}
        kept = replace(response, outputs=MappingProxyType(outputs), queue_seconds=0.0, compute_seconds=0.0)
        self._kept[key] = _Kept(response=kept, size=size)
        self.bytes += size
        while self.bytes > self._most_bytes:
            self.bytes -= self._kept.popitem(last=False)[1].size

    def forget(self, prefix: bytes) -> None:
        """Drop the answers whose keys begin so."""
        for key in [key for key in self._kept if key.startswith(prefix)]:
            self.bytes -= self._kept.pop(key).size


class ModelCache:
    """The answers of one loading of a model."""

    def __init__(self, cache: ResponseCache, number: int) -> None:
        self._cache = cache
        self._prefix = number.to_bytes(8, "big")

    async def key(self, request: InferenceRequest) -> bytes:
        """What equal requests have in common: inputs and wanted outputs, whoever asks."""
        size = sum(tensor.nbytes if tensor.dtype.kind != "O" else _MOST_BYTES_ON_LOOP for tensor in request.inputs.values())
        digest = await asyncio.to_thread(_digest, request) if size > _MOST_BYTES_ON_LOOP else _digest(request)
        return self._prefix + digest

    async def through(
        self, request: InferenceRequest, infer: Infer, *, statistics: Statistics, found: Callable[[], None]
    ) -> InferenceResponse:
        """The answer that was kept, its tensors read-only, after calling `found`; else what `infer` answers, which is kept."""
        began = time.monotonic()
        key = await self.key(request)
        kept = self._cache.get(key)
        looked = time.monotonic() - began
        if kept is not None:
            statistics.found(looked)
            found()
            return kept
        response = await infer(request)
        began = time.monotonic()
        if not response.fallback:  # only what the model's own engine answers
            self._cache.put(key, response)
        statistics.cache_miss.add(looked + time.monotonic() - began)
        return response

    def close(self) -> None:
        """The model serves no more."""
        self._cache.forget(self._prefix)


def _digest(request: InferenceRequest) -> bytes:
    digest = hashlib.blake2b(digest_size=32)
    digest.update(repr(request.outputs).encode())
    for name in sorted(request.inputs):
        tensor = request.inputs[name]
        digest.update(repr((name, tensor.dtype.str, tensor.shape)).encode())
        if tensor.dtype.kind == "O":
            digest.update(repr(tensor.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(tensor).view(np.uint8).data if tensor.size else b"")
    return digest.digest()


def _own(tensor: Tensor) -> Tensor:
    """A copy: what an engine gives may be a part of a whole batch's memory."""
    copy = tensor.copy()
    copy.flags.writeable = False
    return copy
