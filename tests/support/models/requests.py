"""Requests of the Open Inference Protocol, and what their answers hold."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from inference import grpc_service_pb2 as wire

from inference_server.service.open_inference.tensors import datatype_of, encode

Array = np.ndarray[Any, Any]


def infer_request(model: str, *, id: str = "", outputs: tuple[str, ...] = (), **tensors: Array) -> wire.ModelInferRequest:
    """A request with raw elements."""
    request = wire.ModelInferRequest(model_name=model, id=id)
    for name, tensor in tensors.items():
        request.inputs.add(name=name, datatype=datatype_of(tensor.dtype), shape=tensor.shape)
        request.raw_input_contents.append(bytes(encode(tensor)))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def floats(*rows: float) -> Array:
    """Rows of four equal numbers."""
    return np.array([[row] * 4 for row in rows], dtype=np.float32)


def steps(count: int) -> Array:
    """The input of the model `slow`."""
    return np.array([count], dtype=np.int64)


async def failed_call(call: Any) -> grpc.aio.AioRpcError:
    """The error of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    """Status and details of a call that fails."""
    error = await failed_call(call)
    return error.code(), str(error.details())
