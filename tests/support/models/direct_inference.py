"""Runs models at once, without a queue: the smallest thing that fulfils `Inference`."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import numpy as np
import onnxruntime

from inference_server.engine.port import TensorSpec
from inference_server.errors import NotFound
from inference_server.scheduler.port import InferenceRequest, InferenceResponse, ModelFacts

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
}


class DirectInference:
    """Models of a repository folder, each run by ONNX Runtime in a thread."""

    def __init__(self, models: Path) -> None:
        self._models = models
        # As if another file were served under the name, when it is changed.
        self.sha256 = ""
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        session = self._session(request.model)
        names = list(request.outputs) or [output.name for output in session.get_outputs()]
        outputs = await asyncio.to_thread(session.run, names, dict(request.inputs))
        return InferenceResponse(
            model=request.model,
            version="1",
            outputs=dict(zip(names, outputs, strict=True)),
            engine="onnxruntime:float32",
            queue_seconds=0.0,
            compute_seconds=0.0,
        )

    def facts(self, model: str, version: str = "") -> ModelFacts:
        session = self._session(model)
        return ModelFacts(
            name=model,
            version="1",
            engine="onnxruntime:float32",
            inputs=tuple(map(_spec, session.get_inputs())),
            outputs=tuple(map(_spec, session.get_outputs())),
            max_batch_size=0 if self._unbatched(model) else 32,
            sha256=self.sha256,
            parameters={},
        )

    def _unbatched(self, model: str) -> bool:
        config = self._models / model / "config.pbtxt"
        return config.exists() and "max_batch_size: 0" in config.read_text()

    def _session(self, model: str) -> onnxruntime.InferenceSession:
        path = self._models / model / "1" / "model.onnx"
        if not path.exists():
            raise NotFound(f"no model {model}")
        if model not in self._sessions:
            self._sessions[model] = _loaded(path.resolve(), path.stat().st_mtime_ns)
        return self._sessions[model]


class RecordedInference(DirectInference):
    """Remembers what it was asked to run."""

    def __init__(self, models: Path) -> None:
        super().__init__(models)
        self.requests: list[InferenceRequest] = []

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        self.requests.append(request)
        return await super().infer(request)


@functools.lru_cache(maxsize=8)
def _loaded(path: Path, changed_at: int) -> onnxruntime.InferenceSession:
    """A session that a test process loads once, of one thread: test processes share the cores, and idle threads of a session spin."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _spec(node: onnxruntime.NodeArg) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(name=node.name, dtype=np.dtype(_DTYPES[node.type]), shape=shape)
