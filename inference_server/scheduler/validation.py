"""Checks a request's tensors against what the model takes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from inference_server.engine.port import Tensor, Tensors, TensorSpec
from inference_server.errors import InvalidTensor
from inference_server.scheduler.dispatch.work import Bucket

# Combinations of shapes that are remembered.
_MOST_KNOWN = 1024


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the scheduler needs to know of a request's tensors."""

    # Rows of the batch; 1 for a model without batches.
    rows: int
    # Bytes of all inputs.
    size: int
    # Requests of one bucket may share a batch.
    bucket: Bucket


class Signature:
    """A model's inputs and outputs, ready to check requests against."""

    def __init__(self, model: str, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch_size: int) -> None:
        self._model = model
        self._inputs = {spec.name: spec for spec in inputs}
        self._outputs = frozenset(spec.name for spec in outputs)
        self._max_batch_size = max_batch_size
        # What was found right before, by what was looked at; of tensors whose size their shape tells.
        self._known: dict[Hashable, Measured] = {}
        self._sized_by_shape = all(spec.dtype.kind != "O" for spec in inputs)

    def check(self, inputs: Tensors, outputs: Sequence[str]) -> Measured:
        """Raises `InvalidTensor` naming the tensor, what was expected and what came."""
        if not self._sized_by_shape:
            return self._check(inputs, outputs)
        looked_at = (*outputs, *[(name, tensor.dtype, tensor.shape) for name, tensor in inputs.items()])
        measured = self._known.get(looked_at)
        if measured is None:
            measured = self._check(inputs, outputs)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[looked_at] = measured
        return measured

    def _check(self, inputs: Tensors, outputs: Sequence[str]) -> Measured:
        self._check_names(inputs, outputs)
        for name, spec in self._inputs.items():
            self._check_tensor(spec, inputs[name])
        rows = self._rows(inputs) if self._max_batch_size else 1
        size = sum(size_of(tensor) for tensor in inputs.values())
        bucket = tuple(inputs[name].shape[1:] for name in self._inputs) if self._max_batch_size else ()
        return Measured(rows=rows, size=size, bucket=bucket)

    def _check_names(self, inputs: Tensors, outputs: Sequence[str]) -> None:
        if inputs.keys() != self._inputs.keys():
            missing = [name for name in self._inputs if name not in inputs]
            unknown = [name for name in inputs if name not in self._inputs]
            wrong = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(unknown)}, which it does not take"
            raise InvalidTensor(f"model {self._model}: the request {wrong}; expected the inputs {', '.join(self._inputs)}")
        strange = [name for name in outputs if name not in self._outputs]
        if strange:
            raise InvalidTensor(f"model {self._model} has no output {', '.join(strange)}; it has {', '.join(sorted(self._outputs))}")

    def _check_tensor(self, spec: TensorSpec, tensor: Tensor) -> None:
        if tensor.dtype != spec.dtype:
            raise InvalidTensor(f"model {self._model}: input {spec.name} is of type {tensor.dtype}; expected {spec.dtype}")
        fits = len(tensor.shape) == len(spec.shape) and all(told in (-1, got) for told, got in zip(spec.shape, tensor.shape, strict=True))
        if not fits:
            raise InvalidTensor(
                f"model {self._model}: input {spec.name} has the shape {list(tensor.shape)}; expected {list(spec.shape)}, "
                "where -1 takes any size"
            )

    def _rows(self, inputs: Tensors) -> int:
        rows = {name: tensor.shape[0] for name, tensor in inputs.items()}
        counts = set(rows.values())
        if len(counts) > 1:
            raise InvalidTensor(f"model {self._model}: the inputs differ in their batch dimension: {rows}; expected the same for all")
        count = counts.pop() if counts else 1
        if not 1 <= count <= self._max_batch_size:
            raise InvalidTensor(f"model {self._model}: a batch of {count} rows; expected 1 to {self._max_batch_size}: send it in parts")
        return int(count)


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor, strings included."""
    if tensor.dtype.kind != "O":
        return int(tensor.nbytes)
    return int(tensor.nbytes) + sum(len(text) for text in tensor.flat if isinstance(text, str | bytes))
