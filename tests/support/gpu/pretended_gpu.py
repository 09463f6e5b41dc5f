"""A GPU that is none: its engine is ONNX Runtime's on the CPU, and fails or hangs when a test wants it to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inference_server.engine.onnxruntime.engine import OnnxRuntimeLoader
from inference_server.engine.port import Engine, Tensor, Tensors, TensorSpec
from inference_server.engine.runtimes import Runtimes
from inference_server.engine.selection.selector import EngineSelector
from inference_server.errors import ModelFailed


class PretendedGpu:
    """Loads engines of the name `onnxruntime-cuda`. `failure`: raised by each run while it is set."""

    name = "onnxruntime-cuda"
    version = "1"
    precisions = ("float32",)

    def __init__(self) -> None:
        self.failure: ModelFailed | None = None
        # Runs that hang.
        self.waiting = 0
        self._cpu = OnnxRuntimeLoader(threads=1)
        self._goes = threading.Event()
        self._goes.set()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Runs that begin meanwhile end after it only."""
        self._goes.clear()
        try:
            yield
        finally:
            self._goes.set()

    def load(self, path: Path, precision: str, *, threads: int = 0, options: Mapping[str, str] | None = None) -> Engine:
        return _Engine(self, self._cpu.load(path, precision, threads=1))

    def selector(self, device: str = "cuda:0") -> EngineSelector:
        """Of a device that has this engine alone."""
        return EngineSelector(Runtimes(device=device, reference=self._cpu, candidates=(self,), machine={"gpu": "pretended"}))

    def wait(self) -> None:
        """Until runs may end."""
        self.waiting += 1
        assert self._goes.wait(100)
        self.waiting -= 1
        if self.failure:
            raise self.failure


class _Engine:
    name = PretendedGpu.name

    def __init__(self, gpu: PretendedGpu, engine: Engine) -> None:
        self._gpu = gpu
        self._engine = engine
        self.precision = engine.precision
        self.inputs: tuple[TensorSpec, ...] = engine.inputs
        self.outputs: tuple[TensorSpec, ...] = engine.outputs

    def run(self, inputs: Tensors, output_names: tuple[str, ...] = ()) -> dict[str, Tensor]:
        self._gpu.wait()
        return self._engine.run(inputs, output_names)
