"""An engine in plain numpy, by ONNX's own evaluator: slow or wrong on demand, and it remembers its runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.reference import ReferenceEvaluator

from inference_server.engine.port import Tensor, Tensors, TensorSpec
from inference_server.engine.runtimes import Runtimes
from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import ModelFailed


class ReferenceLoader:
    """Loads ONNX files into `ReferenceEngine`.

    `seconds`: added to each run. `error`: relative error of each output. `runs`: the inputs of each run of each engine, in their order.
    `beside`: whether it was the second of two side by side. `slowdown`: how many times `seconds` a run takes beside another.
    `failure`: raised by each run while it is set; `load_failure`: by each load.
    """

    version = "1"

    def __init__(
        self,
        name: str = "numpy",
        *,
        seconds: float = 0.0,
        error: float = 0.0,
        precisions: tuple[str, ...] = ("float32",),
        two_cores: bool = False,
        slowdown: float = 1.0,
    ) -> None:
        self.name = name
        self.precisions = precisions
        self.seconds = seconds
        self.error = error
        self.two_cores = two_cores
        self.slowdown = slowdown
        # Runs that have begun and not ended.
        self.running: list[Tensors] = []
        self.failure: ModelFailed | None = None
        self.load_failure: ModelFailed | None = None
        self.loads = 0
        # Of the last load.
        self.options: Mapping[str, str] | None = None
        self.runs: list[Tensors] = []
        self.beside: list[bool] = []
        self.goes = threading.Event()
        self.goes.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Runs that begin meanwhile end after it only; those before it are forgotten."""
        self.runs.clear()
        self.beside.clear()
        self.goes.clear()
        try:
            yield
        finally:
            self.goes.set()

    async def begun(self, runs: int = 1) -> None:
        """Wait until so many runs have begun."""
        async with asyncio.timeout(60):
            while len(self.runs) < runs:
                await asyncio.sleep(0.001)

    def load(self, path: Path, precision: str, *, threads: int = 0, options: Mapping[str, str] | None = None) -> ReferenceEngine:
        if precision not in self.precisions:
            raise ModelFailed(f"{self.name} does not compute in {precision}")
        if self.load_failure:
            raise self.load_failure
        self.loads += 1
        self.options = options
        try:
            return ReferenceEngine(self, onnx.load(path), precision)
        except (OSError, DecodeError) as error:
            raise ModelFailed(f"{self.name} cannot load {path.name}") from error


class ReferenceEngine:
    def __init__(self, loader: ReferenceLoader, model: onnx.ModelProto, precision: str, *, is_beside: bool = False) -> None:
        self._loader = loader
        self._model = model
        self._is_beside = is_beside
        self._evaluator = ReferenceEvaluator(model)
        self.name = loader.name
        self.precision = precision
        self.inputs = tuple(map(_spec, model.graph.input))
        self.outputs = tuple(map(_spec, model.graph.output))

    def beside(self) -> ReferenceEngine | None:
        return ReferenceEngine(self._loader, self._model, self.precision, is_beside=True) if self._loader.two_cores else None

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        self._loader.beside.append(self._is_beside)
        self._loader.runs.append(inputs)
        if self._loader.failure:
            raise self._loader.failure
        assert self._loader.goes.wait(60)
        self._loader.running.append(inputs)
        time.sleep(self._loader.seconds * (self._loader.slowdown if len(self._loader.running) > 1 else 1.0))
        self._loader.running.pop()
        names = output_names or tuple(output.name for output in self.outputs)
        try:
            values = self._evaluator.run(list(names), dict(inputs))
        except Exception as error:
            raise ModelFailed(f"{self.name} failed to run the model: {error}") from error
        if self._loader.error:
            values = [value * (1 + self._loader.error) for value in values]
        return dict(zip(names, (np.asarray(value) for value in values), strict=True))


def selector(*loaders: ReferenceLoader) -> EngineSelector:
    """A selector that has only these engines, the first of them the reference."""
    return EngineSelector(Runtimes(device="cpu", reference=loaders[0], candidates=loaders, machine={"cpu": "test"}))


def gpu_selector(reference: ReferenceLoader, *loaders: ReferenceLoader) -> EngineSelector:
    """A selector of a GPU that has only these engines; the reference is the CPU's."""
    return EngineSelector(Runtimes(device="cuda:0", reference=reference, candidates=loaders, machine={"gpu": "test"}))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
    return TensorSpec(name=value.name, dtype=onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type), shape=shape)
