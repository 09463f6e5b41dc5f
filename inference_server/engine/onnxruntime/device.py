"""Runs of ONNX Runtime on a GPU: inputs and outputs through page-locked memory, bound where they lie on the device."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime

from inference_server.engine.cuda import Bytes, Device, DeviceBuffer
from inference_server.engine.port import Tensor, Tensors, TensorSpec
from inference_server.engine.transfers import Transfers

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# TensorProto.BFLOAT16
_ONNX_BFLOAT16 = 16
# Run option: which recorded graph a run is, and the number that stands for none.
_GRAPH, _NO_GRAPH = "gpu_graph_id", "-1"
_LEAST_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """What a recorded graph is bound to: none of it may move."""

    binding: Any
    inputs: Mapping[str, DeviceBuffer]
    outputs: Mapping[str, tuple[tuple[int, ...], DeviceBuffer]]
    options: Any


class DeviceRuns:
    """The runs of one session on one GPU, one at a time. `kind`: ONNX Runtime's name of where `device` has its memory."""

    def __init__(
        self, session: Any, device: Device, *, number: int, outputs: Sequence[TensorSpec], transfers: Transfers, kind: str = "cuda"
    ) -> None:
        self._session = session
        self._device = device
        self._number = number
        self._kind = kind
        self._types = {spec.name: spec.dtype for spec in outputs}
        self._transfers = transfers
        self._stream = device.stream()
        self._buffers: dict[str, DeviceBuffer] = {}
        self._hosts: dict[str, Bytes] = {}
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}
        # Seconds that runs and copies took, all together.
        self.seconds = 0.0

    def run(self, names: Sequence[str], inputs: Tensors) -> list[Tensor]:
        """Compute outputs; they are copies."""
        started = time.perf_counter()
        self._device.activate()
        recorded = self._graph(inputs)
        outputs = self._replayed(recorded, names, inputs) if recorded else self._bound(names, inputs)
        self.seconds += time.perf_counter() - started
        return outputs

    def _bound(self, names: Sequence[str], inputs: Tensors) -> list[Tensor]:
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            self._buffers[name] = self._room(self._buffers.get(name), tensor.nbytes)
            self._send(name, tensor, self._buffers[name])
            self._bind_input(binding, name, tensor, self._buffers[name])
        for name in names:
            binding.bind_output(name, self._kind, self._number)
        self._stream.synchronize()
        self._session.run_with_iobinding(binding, _run_options(_NO_GRAPH) if self._transfers.graphs else None)
        values = binding.get_outputs()
        found = {name: (tuple(value.shape()), int(value.data_ptr())) for name, value in zip(names, values, strict=True)}
        return self._receive(found)

    def _replayed(self, recorded: _Recorded, names: Sequence[str], inputs: Tensors) -> list[Tensor]:
        for name, tensor in inputs.items():
            self._send(name, tensor, recorded.inputs[name])
        self._stream.synchronize()
        self._session.run_with_iobinding(recorded.binding, recorded.options)
        return self._receive({name: (recorded.outputs[name][0], recorded.outputs[name][1].address) for name in names})

    def _graph(self, inputs: Tensors) -> _Recorded | None:
        """What stands for these shapes; ONNX Runtime records it at its first run. None when they are not to be recorded."""
        shapes = {name: tensor.shape for name, tensor in inputs.items()}
        key = tuple(sorted(shapes.items()))
        if key not in self._recorded:
            if self._transfers.graphs is None or not self._transfers.graphs.records(shapes, len(self._recorded)):
                return None
            self._recorded[key] = self._fixed(inputs, len(self._recorded) + 1)
        return self._recorded[key]

    def _fixed(self, inputs: Tensors, number: int) -> _Recorded:
        """Buffers of their own for one set of shapes; a run without a graph tells those of the outputs."""
        names = tuple(self._types)
        shapes = {name: output.shape for name, output in zip(names, self._bound(names, inputs), strict=True)}
        binding = self._session.io_binding()
        buffers = {name: self._device.allocate(max(1, tensor.nbytes)) for name, tensor in inputs.items()}
        for name, tensor in inputs.items():
            self._bind_input(binding, name, tensor, buffers[name])
        outputs = {}
        for name, shape in shapes.items():
            buffer = self._device.allocate(max(1, math.prod(shape) * self._types[name].itemsize))
            outputs[name] = (shape, buffer)
            binding.bind_output(name, self._kind, self._number, _element(self._types[name]), shape, buffer.address)
        return _Recorded(binding=binding, inputs=buffers, outputs=outputs, options=_run_options(str(number)))

    def _bind_input(self, binding: Any, name: str, tensor: Tensor, buffer: DeviceBuffer) -> None:
        binding.bind_input(name, self._kind, self._number, _element(tensor.dtype), tensor.shape, buffer.address)

    def _send(self, name: str, tensor: Tensor, buffer: DeviceBuffer) -> None:
        if not tensor.nbytes:
            return
        if self._transfers.pinned_input:
            host = self._host(f"input {name}", tensor.nbytes)
            host.view(tensor.dtype).reshape(tensor.shape)[...] = tensor
        else:
            host = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
        self._stream.to_device(buffer.address, host)

    def _receive(self, found: Mapping[str, tuple[tuple[int, ...], int]]) -> list[Tensor]:
        hosts = []
        for name, (shape, address) in found.items():
            size = math.prod(shape) * self._types[name].itemsize
            host = self._host(f"output {name}", size) if self._transfers.pinned_output else np.empty(size, np.uint8)
            if size:
                self._stream.to_host(host, address)
            hosts.append(host.view(self._types[name]).reshape(shape))
        self._stream.synchronize()
        return [host.copy() for host in hosts] if self._transfers.pinned_output else hosts

    def _host(self, what: str, size: int) -> Bytes:
        kept = self._hosts.get(what)
        if kept is None or kept.nbytes < size:
            kept = self._hosts[what] = self._device.pinned(max(_LEAST_BYTES, size * 3 // 2))
        return kept[:size]

    def _room(self, kept: DeviceBuffer | None, size: int) -> DeviceBuffer:
        return kept if kept is not None and kept.size >= size else self._device.allocate(max(_LEAST_BYTES, size * 3 // 2))


def _element(dtype: np.dtype[Any]) -> Any:
    return _ONNX_BFLOAT16 if dtype == _BFLOAT16 else dtype.type


def _run_options(graph: str) -> Any:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(_GRAPH, graph)
    return options
