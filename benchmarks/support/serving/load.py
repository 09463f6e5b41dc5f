"""The load of the benchmarks: the same bytes, sent from one process by many callers, to whichever server listens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from inference import grpc_service_pb2 as wire

from benchmarks.support.serving.light_callers import call_over_and_over

TRIVIAL = "trivial"
MINILM = "all_minilm_l6_v2"
TOKENS = 32
_READY = "/inference.GRPCInferenceService/ModelReady"
_CALLERS_OF_A_CONNECTION = 16
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


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


def drive(address: str, request: bytes, *, callers: int, seconds: float = 0.0, requests: int = 0) -> Load:
    """Send a request over and over, each caller as soon as it is answered, for some time or so many times. Raises `CallFailed`."""
    full, rest = divmod(callers, _CALLERS_OF_A_CONNECTION)
    connections = [*([_CALLERS_OF_A_CONNECTION] * full), *([rest] if rest else [])]
    call_over_and_over(address, request, callers=[1] * len(connections), answered=lambda _: False)  # so that the model is warm
    load = Load()
    begun = time.perf_counter()
    until = begun + (seconds or float("inf"))
    left = requests - callers if requests else 2**62

    def answered(took: float) -> bool:
        nonlocal left
        load.latencies.append(took)
        left -= 1
        return left >= 0 and time.perf_counter() < until

    call_over_and_over(address, request, callers=connections, answered=answered)
    load.seconds = time.perf_counter() - begun
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
