"""What a model's engines are compared on and warmed up with: the requests that its owner gives, or a guess at them."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from inference_server.engine.port import Engine, Tensors, TensorSpec
from inference_server.engine.selection.agreement import DEFAULT_TOLERANCE, deviation
from inference_server.engine.selection.sample import representative
from inference_server.errors import ConfigurationError, DeviceFailed, InvalidTensor, ModelFailed
from inference_server.models.completion import Completed
from inference_server.models.values import Configuration, Warmup
from inference_server.scheduler.dispatch.executor import PlacedEngine
from inference_server.scheduler.loading.warmup import warmup_tensors
from inference_server.scheduler.validation import Signature

# Rows of the batch on which engines are compared and measured.
_ROWS = 8


class Samples:
    """Requests of one model."""

    def __init__(self, name: str, configuration: Configuration) -> None:
        """`name`: the model's, for messages."""
        self._name = name
        self._configuration = configuration

    @property
    def are_given(self) -> bool:
        """Whether the model's owner says what its requests are like."""
        return bool(self._configuration.warmups or self._configuration.warmup_shapes)

    def key(self) -> str:
        """Tells what `of` will give without a loaded engine, and alike at each start."""
        warmups = [warmup.SerializeToString(deterministic=True) for warmup in self._configuration.message.model_warmup]
        files = [given.file for warmup in self._configuration.warmups for _, given in sorted(warmup.inputs.items()) if given.file]
        sizes = [file.stat().st_size for file in files if file.is_file()]
        shapes = sorted(self._configuration.warmup_shapes.items())
        return hashlib.sha256(repr((warmups, sizes, shapes, self._configuration.max_batch_size)).encode()).hexdigest()

    def of(self, engine: Engine, completed: Completed) -> Tensors:
        """The request on which engines are compared and measured. Raises `ConfigurationError`."""
        if self._configuration.warmups:
            return self._given(self._configuration.warmups[0], engine, completed)
        rows = min(completed.max_batch_size, _ROWS)
        return representative(specs_of(engine.inputs, completed), rows=rows, shapes=self._configuration.warmup_shapes)

    def warm_up(self, placed: PlacedEngine, completed: Completed, *, sample: Callable[[Engine], Tensors]) -> None:
        """Run what the owner gives, or else the sample. Raises `ConfigurationError`, and what running the owner's requests raises."""
        engine = placed.engine
        for rows, shapes in self._configuration.gpu.graph_specs if placed.device != "cpu" else ():
            with contextlib.suppress(ModelFailed):  # what is recorded now is not recorded in a request
                told = {**self._configuration.warmup_shapes, **shapes}
                engine.run(representative(specs_of(engine.inputs, completed), rows=rows, shapes=told))
        if not self._configuration.warmups:
            with contextlib.suppress(ModelFailed):  # the sample is a guess
                engine.run(sample(engine))
        for warmup in self._configuration.warmups:
            tensors = self._given(warmup, engine, completed)
            for _ in range(warmup.count):
                with contextlib.suppress(*([DeviceFailed] if placed.spare else [])):  # each request will be told
                    engine.run(tensors)

    def _given(self, warmup: Warmup, engine: Engine, completed: Completed) -> Tensors:
        tensors = warmup_tensors(warmup, batched=completed.max_batch_size > 0)
        inputs, outputs = specs_of(engine.inputs, completed), specs_of(engine.outputs, completed)
        try:
            Signature(self._name, inputs=inputs, outputs=outputs, max_batch_size=completed.max_batch_size).check(tensors, ())
        except InvalidTensor as error:
            raise ConfigurationError(f"model_warmup {warmup.name} does not fit: {error}") from error
        return tensors


def specs_of(specs: tuple[TensorSpec, ...], completed: Completed) -> tuple[TensorSpec, ...]:
    """An engine's inputs or outputs with the shapes of the complete configuration."""
    return tuple(replace(spec, shape=completed.shapes[spec.name]) for spec in specs)


def rows_are_independent(engine: Engine, sample: Tensors) -> bool:
    """Whether a batch gives what its rows give one at a time."""
    rows = min(len(tensor) for tensor in sample.values())
    try:
        whole = engine.run(sample)
        parts = [engine.run({name: tensor[row : row + 1] for name, tensor in sample.items()}) for row in range(rows)]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
    except (ModelFailed, ValueError):
        return False
    return deviation(joined, whole) <= DEFAULT_TOLERANCE
