"""How tensors travel to a GPU and runs are launched there, as the options of a load tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

# Options of a load: whether graphs are recorded, and of what; whether tensors pass through page-locked memory, 0 or 1.
CUDA_GRAPHS, GRAPH_SHAPES = "cuda_graphs", "graph_shapes"
PINNED_INPUT, PINNED_OUTPUT = "pinned_input", "pinned_output"
# By what engines are asked for graphs: TensorRT itself, and ONNX Runtime's providers, in their own words.
_GRAPHS = (CUDA_GRAPHS, "enable_cuda_graph", "trt_cuda_graph_enable")
# Most shapes of one instance that are recorded.
MOST_GRAPHS = 16


@dataclass(frozen=True, kw_only=True)
class GraphShapes:
    """What is recorded, as `graph_spec` of a configuration says; with none of them everything is."""

    # Rows of the batch, 0 for models without one, and shapes by input without the batch dimension; inputs left out may have any.
    specs: tuple[tuple[int, Mapping[str, tuple[int, ...]]], ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, str]) -> GraphShapes:
        """As the options of a load tell: a JSON list of `[rows, {input: [sizes]}]`."""
        told = json.loads(options.get(GRAPH_SHAPES, "[]"))
        return cls(specs=tuple((rows, {name: tuple(sizes) for name, sizes in inputs.items()}) for rows, inputs in told))

    def records(self, shapes: Mapping[str, tuple[int, ...]], kept: int) -> bool:
        """Whether these shapes are recorded, where so many others are."""
        if kept >= MOST_GRAPHS:
            return False
        return not self.specs or any(_fits(rows, inputs, shapes) for rows, inputs in self.specs)


def _fits(rows: int, inputs: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    batch = (rows,) if rows else ()
    return all(
        shape[: len(batch)] == batch and (name not in inputs or shape[len(batch) :] == inputs[name]) for name, shape in shapes.items()
    )


@dataclass(frozen=True, kw_only=True)
class Transfers:
    """How tensors travel, and how runs are launched."""

    # Whether inputs and outputs pass through page-locked memory.
    pinned_input: bool = True
    pinned_output: bool = True
    # The shapes whose runs are recorded once and then launched whole; None for none.
    graphs: GraphShapes | None = None

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Transfers:
        """As the options of a load tell."""
        return cls(
            pinned_input=options.get(PINNED_INPUT) != "0",
            pinned_output=options.get(PINNED_OUTPUT) != "0",
            graphs=GraphShapes.of(options) if any(options.get(option) == "1" for option in _GRAPHS) else None,
        )
