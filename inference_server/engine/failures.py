"""Tells the failures of a device from those of a model, by what runtimes say."""

from __future__ import annotations

import re

from inference_server.errors import DeviceFailed, ModelFailed

# As ONNX Runtime, CUDA, cuDNN, cuBLAS and TensorRT word them.
_CAUSES = (
    ("out_of_memory", re.compile(r"out of memory|failed to allocate memory|cuda.?error.?memory.?allocation|_ALLOC_FAILED|bad_alloc", re.I)),
    ("device_lost", re.compile(r"\bCUDA (failure|error)|cuda[A-Z]\w*|CU(BLAS|DNN)_STATUS|CUDNN failure|device (is )?lost|Xid", re.I)),
)


def failure_on_device(message: str, reason: str) -> ModelFailed:
    """The error of a run on a GPU: `DeviceFailed` where its reason is the device's, for then another device may do better."""
    cause = next((cause for cause, pattern in _CAUSES if pattern.search(reason)), None)
    return DeviceFailed(message, cause=cause) if cause else ModelFailed(message)
