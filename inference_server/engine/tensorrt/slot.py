"""An execution context of TensorRT with the device's memory for its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from inference_server.engine.cuda import Device, DeviceBuffer, Stream
from inference_server.engine.failures import failure_on_device
from inference_server.engine.port import TensorSpec
from inference_server.errors import ModelFailed


class Scratch:
    """Memory for what lies between the layers, of the size that the hungriest profile takes; contexts that run in turns share it."""

    def __init__(self, device: Device, size: int) -> None:
        self._buffer = device.allocate(max(256, size))

    def give(self, context: Any) -> None:
        """Let a context use it."""
        context.set_device_memory(self._buffer.address, self._buffer.size)


class Slot:
    """A context in one profile, and buffers that are kept from run to run and grown when a shape needs more."""

    def __init__(
        self,
        context: Any,
        *,
        api: Any,
        device: Device,
        stream: Stream,
        messages: Any,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
    ) -> None:
        self._context = context
        self._device = device
        self._stream = stream
        self._messages = messages
        self._input_specs = tuple(inputs)
        self._output_specs = tuple(outputs)
        self._allocator = _allocator(api, device)
        self._shapes: Mapping[str, tuple[int, ...]] = {}
        self.inputs: dict[str, DeviceBuffer] = {}
        self._outputs: dict[str, DeviceBuffer] = {}
        # Outputs whose shapes hang on the values of inputs; known once shapes were set.
        self.unknown_shapes: frozenset[str] = frozenset()
        # Whether a run ever showed such outputs: what is allocated in a run cannot be recorded.
        self.never_records = False

    def shape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Set the shapes of the inputs, and make room for them and for the outputs."""
        if shapes == self._shapes:
            return
        self._shapes = {}
        for spec in self._input_specs:
            if not self._context.set_input_shape(spec.name, tuple(shapes[spec.name])):
                raise ModelFailed(f"tensorrt refuses the shape {list(shapes[spec.name])} of {spec.name}: {self._messages.last}")
            size = math.prod(shapes[spec.name]) * spec.dtype.itemsize
            self.inputs[spec.name] = self._room(self.inputs.get(spec.name), size)
            self._context.set_tensor_address(spec.name, self.inputs[spec.name].address)
        missing = self._context.infer_shapes()
        if missing:
            raise ModelFailed(f"tensorrt cannot tell the shapes of the outputs without {', '.join(missing)}")
        self.unknown_shapes = frozenset(
            spec.name for spec in self._output_specs if any(size < 0 for size in self._context.get_tensor_shape(spec.name))
        )
        self.never_records = self.never_records or bool(self.unknown_shapes)
        for spec in self._output_specs:
            self._place_output(spec)
        self._shapes = dict(shapes)

    def enqueue(self) -> None:
        """Queue a run. Raises `ModelFailed`, or `DeviceFailed` where the device is at fault."""
        self._messages.last = ""
        if not self._context.execute_async_v3(self._stream.handle):
            reason = self._messages.last or "it gave no reason"
            raise failure_on_device(f"tensorrt failed to run the model: {reason}", reason)

    def output(self, name: str) -> tuple[tuple[int, ...], int]:
        """Shape and address of an output of the last run."""
        if name in self.unknown_shapes:
            shape = self._allocator.shapes[name]
            buffer = self._allocator.buffers.get(name)
            return shape, buffer.address if buffer else 0
        return tuple(self._context.get_tensor_shape(name)), self._outputs[name].address

    def _place_output(self, spec: TensorSpec) -> None:
        if spec.name in self.unknown_shapes:
            self._context.set_output_allocator(spec.name, self._allocator)
            return
        self._context.set_output_allocator(spec.name, None)
        size = math.prod(self._context.get_tensor_shape(spec.name)) * spec.dtype.itemsize
        self._outputs[spec.name] = self._room(self._outputs.get(spec.name), size)
        self._context.set_tensor_address(spec.name, self._outputs[spec.name].address)

    def _room(self, kept: DeviceBuffer | None, size: int) -> DeviceBuffer:
        """The buffer there was, or a larger one: at least half as large again, so that it is grown seldom."""
        if kept is not None and kept.size >= size:
            return kept
        return self._device.allocate(max(256, size, kept.size * 3 // 2 if kept else 0))


def _allocator(api: Any, device: Device) -> Any:
    """Makes room for outputs when their sizes are known, in the middle of a run."""

    class Allocator(api.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IOutputAllocator.__init__(self)
            self.buffers: dict[str, DeviceBuffer] = {}
            self.shapes: dict[str, tuple[int, ...]] = {}

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            kept = self.buffers.get(tensor_name)
            if kept is None or kept.size < size:
                self.buffers[tensor_name] = device.allocate(max(256, size))
            return self.buffers[tensor_name].address

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            return self.reallocate_output_async(tensor_name, memory, size, alignment, 0)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shapes[tensor_name] = tuple(shape)

    return Allocator()
