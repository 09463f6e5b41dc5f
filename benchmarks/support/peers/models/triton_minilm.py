"""MiniLM in ONNX Runtime for Triton's Python backend."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as backend

_INPUTS = ("input_ids", "attention_mask")


class TritonPythonModel:
    """Token ids → embeddings."""

    def initialize(self, arguments):
        """Open the session."""
        path = Path(arguments["model_repository"]) / arguments["model_version"] / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        """Answer the requests that Triton batched, in one run."""
        tensors = {
            name: np.concatenate([backend.get_input_tensor_by_name(request, name).as_numpy() for request in requests]) for name in _INPUTS
        }
        (embeddings,) = self._session.run(["sentence_embedding"], tensors)
        return [
            backend.InferenceResponse([backend.Tensor("sentence_embedding", embeddings[row : row + 1])]) for row in range(len(requests))
        ]
