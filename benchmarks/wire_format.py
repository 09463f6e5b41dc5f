"""What reading and writing the elements of a tensor costs beside protobuf, and with it: message → arrays → message.

Prints a table and the ratio of the two, measured in turns in one run. Usage: python benchmarks/wire_format.py [--check]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from inference import grpc_service_pb2 as wire

from inference_server.service.open_inference.tensors import decode_inputs, encode
from inference_server.service.open_inference.wire_format import InferResponse, parse_request, serialize_response

# With --check: the most that reading and writing 1 MiB by hand may cost, as a share of protobuf's cost.
_BOUND = 0.6
_SIZES = (64, 64 * 1024, 1024 * 1024, 16 * 1024 * 1024)


def with_protobuf(content: bytes) -> bytes:
    """Read a request with protobuf alone, and answer with the same elements."""
    tensor = decode_inputs(wire.ModelInferRequest.FromString(content))["x"]
    response = wire.ModelInferResponse(model_name="m")
    response.outputs.add(name="y", datatype="FP32", shape=tensor.shape)
    response.raw_output_contents.append(tensor.tobytes())
    return response.SerializeToString()


def by_hand(content: bytes) -> bytes:
    """The same as the server does it; the copy stands for the one that aligns the elements for an engine."""
    request = parse_request(content)
    tensor = decode_inputs(request.message, request.raw)["x"]
    tensor = tensor if tensor.flags.aligned else tensor.copy()
    message = wire.ModelInferResponse(model_name="m")
    message.outputs.add(name="y", datatype="FP32", shape=tensor.shape)
    return serialize_response(InferResponse(message=message, raw=[encode(tensor)]))


def main() -> None:
    """Measure each size."""
    ratios = {}
    print(f"{'bytes':>10} {'protobuf µs':>12} {'by hand µs':>12} {'ratio':>6}")
    for size in _SIZES:
        request = wire.ModelInferRequest(model_name="m", raw_input_contents=[np.ones(size // 4, np.float32).tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[1, size // 4])
        content = request.SerializeToString()
        protobuf, hand = _medians(content, max(20, min(400, 64 * 2**20 // size)))
        ratios[size] = hand / protobuf
        print(f"{size:>10} {protobuf * 1e6:>12.1f} {hand * 1e6:>12.1f} {ratios[size]:>6.2f}")
    if "--check" in sys.argv and ratios[2**20] > _BOUND:
        raise SystemExit(f"1 MiB costs {ratios[2**20]:.2f} of protobuf's time; at most {_BOUND} is allowed")


def _medians(content: bytes, rounds: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for kept, call in zip(times, (with_protobuf, by_hand), strict=True):
            kept.append(_seconds(call, content))
    return statistics.median(times[0]), statistics.median(times[1])


def _seconds(call: Callable[[bytes], bytes], content: bytes) -> float:
    started = time.perf_counter()
    call(content)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
