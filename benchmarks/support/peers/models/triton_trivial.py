"""The trivial model for Triton's Python backend: answers its input."""

import triton_python_backend_utils as backend


class TritonPythonModel:
    """`x` → `y`."""

    def execute(self, requests):
        """Answer a batch."""
        return [
            backend.InferenceResponse([backend.Tensor("y", backend.get_input_tensor_by_name(request, "x").as_numpy())])
            for request in requests
        ]
