"""Batches that are run in portions, for models whose planes between operators leave a core's cache when rows are many.

And for models of many shapes: a runtime keeps what it has prepared for each, and portions have few numbers of rows, or such as are told.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from inference_server.engine.port import Engine, KeepsMemory, Tensor, Tensors
from inference_server.errors import ModelFailed


def in_portions(engine: Engine, run_bytes: int, run_rows: Sequence[int] = ()) -> Engine:
    """An engine whose executions take at most so many bytes of input, 0 for no bound, and have these numbers of rows, none for any."""
    return InPortions(engine, run_bytes=run_bytes, run_rows=run_rows) if run_bytes or run_rows else engine


class InPortions:
    """Runs as many rows at once as stay within some bytes of input, at least one, and the others after them: an `Engine`."""

    def __init__(self, engine: Engine, *, run_bytes: int, run_rows: Sequence[int] = ()) -> None:
        """`engine`: of a model that takes batches, whose rows do not depend on each other; `run_bytes`: of the inputs of one execution.

        `run_rows`: the numbers of rows that it may have, 1 among them; empty for any.
        """
        self._engine = engine
        self._run_bytes = run_bytes
        self._run_rows = sorted(run_rows)
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
        portions = self._portions(rows, sum(tensor.nbytes for tensor in inputs.values()))
        if len(portions) <= 1:
            return self._engine.run(inputs, output_names)
        whole: dict[str, Tensor] = {}
        for start, end in itertools.pairwise(itertools.accumulate(portions, initial=0)):
            some, count = slice(start, end), end - start
            for name, values in self._engine.run({name: tensor[some] for name, tensor in inputs.items()}, output_names).items():
                if values.shape[:1] != (count,):
                    raise ModelFailed(f"output {name} has the shape {list(values.shape)} for a portion of {count} rows; they come first")
                # Copied while it is in the cache, and its memory is the next run's.
                whole.setdefault(name, np.empty((rows, *values.shape[1:]), values.dtype))[some] = values
        return whole

    def _portions(self, rows: int, input_bytes: int) -> list[int]:
        """How many rows each execution has."""
        most = max(self._run_bytes * rows // max(input_bytes, 1), 1) if self._run_bytes else rows
        if not self._run_rows:
            # Evenly: a last portion of few rows costs more a row.
            size = max(-(-rows // max(-(-rows // most), 1)), 1)
            return [min(size, rows - start) for start in range(0, rows, size)]
        portions, left = list[int](), rows
        while left:
            portions.append(self._run_rows[bisect_right(self._run_rows, min(left, most)) - 1])
            left -= portions[-1]
        return portions
