"""The load of the benchmarks: the same bytes, sent from one process by many callers, to whichever server listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import numpy as np
from inference import grpc_service_pb2 as wire

TRIVIAL = "trivial"
MINILM = "all_minilm_l6_v2"
TOKENS = 32
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_READY = "/inference.GRPCInferenceService/ModelReady"
_CALLERS_OF_A_CONNECTION = 16
_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


@dataclass(kw_only=True)
class Load:
    """What became of a load."""

    requests: int = 0
    seconds: float = 0.0
    # Of each request, in seconds.
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def percentile(self, percent: float) -> float:
        """Of the latencies, in milliseconds."""
        return 1000 * float(np.percentile(self.latencies, percent))


def trivial_request(size: int) -> bytes:
    """A request for `trivial`, which answers its input: `size` bytes of float32."""
    return infer_request(TRIVIAL, {"x": np.ones((1, size // 4), np.float32)})


def text_request() -> bytes:
    """A request for one text of MiniLM."""
    return infer_request(MINILM, text_tensors(1))


def text_tensors(rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """So many texts, in tokens."""
    return {"input_ids": np.full((rows, TOKENS), 2003, np.int64), "attention_mask": np.ones((rows, TOKENS), np.int64)}


def infer_request(model: str, tensors: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """A ModelInferRequest with raw contents."""
    names = {"float32": "FP32", "int64": "INT64"}
    message = wire.ModelInferRequest(model_name=model, raw_input_contents=[tensor.tobytes() for tensor in tensors.values()])
    for name, tensor in tensors.items():
        message.inputs.add(name=name, datatype=names[tensor.dtype.name], shape=tensor.shape)
    return message.SerializeToString()


async def drive(address: str, request: bytes, *, callers: int, seconds: float = 0.0, requests: int = 0) -> Load:
    """Send a request over and over, each caller as soon as it is answered, for some time or so many times."""
    channels = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(-(-callers // _CALLERS_OF_A_CONNECTION))]
    methods: list[Any] = [channel.unary_unary(_INFER) for channel in channels]
    load = Load()
    left = requests

    async def call(method: Any) -> None:
        nonlocal left
        while time.perf_counter() < until and (left := left - 1) >= 0:
            started = time.perf_counter()
            await method(request, timeout=120)
            load.latencies.append(time.perf_counter() - started)

    try:
        await asyncio.gather(*(method(request, timeout=60) for method in methods))  # connects
        begun = time.perf_counter()
        until = begun + (seconds or float("inf"))
        left = requests or 2**62
        await asyncio.gather(*(call(methods[number % len(methods)]) for number in range(callers)))
        load.seconds = time.perf_counter() - begun
        load.requests = len(load.latencies)
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))
    return load


def drive_alone(address: str, request: bytes, *, seconds: float) -> Load:
    """The same by one caller that blocks, so that no event loop of ours stands between two requests."""
    load = Load()
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        method: Any = channel.unary_unary(_INFER)
        method(request, timeout=60)
        begun = started = time.perf_counter()
        while started - begun < seconds:
            method(request, timeout=60)
            ended = time.perf_counter()
            load.latencies.append(ended - started)
            started = ended
    load.seconds = started - begun
    load.requests = len(load.latencies)
    return load


def wait_for_models(address: str, models: tuple[str, ...], *, runs: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait until they are ready, for as long as their server `runs`. Raises `TimeoutError`."""
    until = time.monotonic() + seconds
    with grpc.insecure_channel(address, options=_OPTIONS) as channel:
        ready: Any = channel.unary_unary(_READY)
        for model in models:
            while not _is_ready(ready, model):
                if not runs():
                    raise TimeoutError("it has ended")
                if time.monotonic() > until:
                    raise TimeoutError(f"{model} is not ready after {seconds:.0f} s")
                time.sleep(0.2)


def _is_ready(method: Any, model: str) -> bool:
    try:
        answer = method(wire.ModelReadyRequest(name=model).SerializeToString(), timeout=5)
    except grpc.RpcError:
        return False
    return wire.ModelReadyResponse.FromString(answer).ready
