"""The benchmark's models as MLServer's custom runtimes."""

import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Trivial(MLModel):
    """Answers its input."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """`x` → `y`."""
        tensor = NumpyCodec.decode_input(payload.inputs[0])
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", tensor)])


class MiniLm(MLModel):
    """MiniLM in ONNX Runtime."""

    async def load(self) -> bool:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Token ids → embeddings."""
        inputs = {tensor.name: np.ascontiguousarray(NumpyCodec.decode_input(tensor)) for tensor in payload.inputs}
        (embeddings,) = self._session.run(["sentence_embedding"], inputs)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("sentence_embedding", embeddings)])
