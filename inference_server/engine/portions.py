"""Batches that are run in portions, for models whose planes between operators leave a core's cache when rows are many.

And for models of many shapes: a runtime keeps what it has prepared for each, and portions have few numbers of rows.
"""

from __future__ import annotations

import numpy as np

from inference_server.engine.port import Engine, KeepsMemory, Tensor, Tensors
from inference_server.errors import ModelFailed


def in_portions(engine: Engine, run_bytes: int) -> Engine:
    """An engine whose executions take at most so many bytes of input; 0 for no bound."""
    return InPortions(engine, run_bytes=run_bytes) if run_bytes else engine


class InPortions:
    """Runs as many rows at once as stay within some bytes of input, at least one, and the others after them: an `Engine`."""

    def __init__(self, engine: Engine, *, run_bytes: int) -> None:
        """`engine`: of a model that takes batches, whose rows do not depend on each other; `run_bytes`: of the inputs of one execution."""
        self._engine = engine
        self._run_bytes = run_bytes
        self.name = engine.name
        self.precision = engine.precision
        self.inputs = engine.inputs
        self.outputs = engine.outputs

    @property
    def keeps_much(self) -> bool:
        """See `KeepsMemory`."""
        return isinstance(self._engine, KeepsMemory) and self._engine.keeps_much

    def give_back(self) -> None:
        """See `KeepsMemory`."""
        if isinstance(self._engine, KeepsMemory):
            self._engine.give_back()

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """Compute; see `Engine`."""
        rows = len(next(iter(inputs.values())))
        portion = max(self._run_bytes * rows // max(sum(tensor.nbytes for tensor in inputs.values()), 1), 1)
        if rows <= portion:
            return self._engine.run(inputs, output_names)
        # Evenly: a last portion of few rows costs more a row.
        portion = -(-rows // -(-rows // portion))
        whole: dict[str, Tensor] = {}
        for start in range(0, rows, portion):
            count = min(portion, rows - start)
            some = slice(start, start + count)
            for name, values in self._engine.run({name: tensor[some] for name, tensor in inputs.items()}, output_names).items():
                if values.shape[:1] != (count,):
                    raise ModelFailed(f"output {name} has the shape {list(values.shape)} for a portion of {count} rows; they come first")
                # Copied while it is in the cache, and its memory is the next run's.
                whole.setdefault(name, np.empty((rows, *values.shape[1:]), values.dtype))[some] = values
        return whole
